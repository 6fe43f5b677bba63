"""What a defence holds against its threshold, in words: the score's label, and what it is averaged over first.

Which scores a run has, and what they are called, its summary says under `scores`, as whoever ran it knew the plug-ins:

    {"held": NAME, "judges": BOOL, "detectors": {NAME: {"label": TEXT, "unit": TEXT}, ...}}

`held` is the one in the column `before` of the verdicts, `judges` whether the defence acts on it. `stopping` is the
setting defense.stopping of a run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedmd.types import Json

DISCREPANCY = "discrepancy"  # every record has a column for it, whatever else was measured
GROUPS = {"per_client": ["round", "client"], "batch_mean": ["round"]}
LABELS = {"per_client": "threshold (client mean)", "batch_mean": "threshold (batch mean)"}
NOTES = {
    "per_client": " The threshold is held against a client's mean of a round, not against single samples.",
    "batch_mean": " The threshold is held against the mean of a round's whole batch, not against single samples.",
}


@dataclass(frozen=True)
class Score:
    """A score by its name in columns and settings, its label for people, and its unit, "" for none."""

    name: str
    label: str
    unit: str = ""

    @classmethod
    def of(cls, name: str, detectors: Json) -> Self:
        """As `detectors`, those of a summary's `scores`, have it; without a label of its own, by its name in words."""
        known = detectors.get(name, {})
        label = known.get("label", name)
        return cls(name, name.replace("_", " ").capitalize() if label == name else label, known.get("unit", ""))

    @property
    def with_unit(self) -> str:
        """`Historical loss (nats)`, for an axis."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def unmeasured(self) -> str:
        """What a figure says that has nothing to show."""
        return f"no {self.label.lower()} measured in this run"

    def amount(self, value: float) -> str:
        """`0.123 nats`."""
        return f"{value:.3g} {self.unit}".rstrip()


def scores_of(summary: Json) -> Json:
    """The summary's `scores`; of a run from before there were any, what its settings tell."""
    if "scores" in summary:
        return dict(summary["scores"])
    config = summary["config"]
    detector = config.get("defense", {}).get("detector", DISCREPANCY)
    return {"held": "score" if config.get("mode") == "update" else detector, "judges": False, "detectors": {}}


def held_score(scores: Json) -> Score:
    """What was held against the threshold."""
    return Score.of(scores["held"], scores["detectors"])


def known_detectors(summaries: Iterable[Json]) -> Json:
    """The `detectors` of several runs in one."""
    return {name: known for summary in summaries for name, known in scores_of(summary)["detectors"].items()}


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
