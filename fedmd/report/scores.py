"""What a defence holds against its threshold, in words: the score's name, and what it is averaged over first.

`detector` and `stopping` are the settings defense.detector and defense.stopping of a run.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmd.types import Json

DISCREPANCY = "Memorization discrepancy"
LIMIT_FACTOR = "Score over its limit"  # of mode=update: a factor, acted upon above 1
NAMES = {
    "discrepancy": DISCREPANCY,
    "historical_loss": "Historical loss",
    "current_loss": "Current loss",
    "confidence": "Lack of confidence",
    "pixel_distance": "Pixel distance",
    "kernel_density": "Negative log kernel density",
    "lid": "Local intrinsic dimensionality",
    "mahalanobis": "Mahalanobis distance",
    "limit_factor": LIMIT_FACTOR,
}
UNITS = {  # a plug-in's score has none that is known here
    LIMIT_FACTOR: "factor",
    **{NAMES[detector]: "nats" for detector in ("discrepancy", "historical_loss", "current_loss", "kernel_density")},
}
GROUPS = {"per_client": ["round", "client"], "batch_mean": ["round"]}
LABELS = {"per_client": "threshold (client mean)", "batch_mean": "threshold (batch mean)"}
NOTES = {
    "per_client": " The threshold is held against a client's mean of a round, not against single samples.",
    "batch_mean": " The threshold is held against the mean of a round's whole batch, not against single samples.",
}


def detector_name(detector: str) -> str:
    """`Historical loss` for historical_loss; a plug-in's by its own name."""
    return NAMES.get(detector, detector.replace("_", " ").capitalize())


def unit_of(name: str) -> str:
    """The unit of the score called `name`: `nats` for a logarithm; empty for a number without one."""
    return UNITS.get(name, "")


def with_unit(name: str) -> str:
    """`Historical loss (nats)`, for an axis."""
    return f"{name} ({unit_of(name)})" if unit_of(name) else name


def amount(value: float, name: str) -> str:
    """`0.123 nats` of the score `name`."""
    return f"{value:.3g} {unit_of(name)}".rstrip()


def detector_setting(config: Json) -> str:
    """Which score a run of these settings holds against its threshold; older settings know the discrepancy only."""
    if config.get("mode") == "update":
        return "limit_factor"
    return str(config.get("defense", {}).get("detector", "discrepancy"))


def threshold_label(stopping: str) -> str:
    """The threshold's name in a legend."""
    return LABELS.get(stopping, "threshold")


def threshold_note(stopping: str) -> str:
    """A sentence, with a space before it, where the threshold is not held against single samples; else nothing."""
    return NOTES.get(stopping, "")


def held_scores(verdicts: pd.DataFrame, stopping: str) -> NDArray[np.float64]:
    """What was held against the threshold for each sample [N]: its own `before`, or the mean that it is part of."""
    held = verdicts["before"]
    if stopping in GROUPS:
        held = verdicts.groupby(GROUPS[stopping])["before"].transform("mean")
    scores: NDArray[np.float64] = held.to_numpy(np.float64)
    return scores
