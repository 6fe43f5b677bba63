"""The file that `fedmd calibrate` writes and threshold=calibrated reads: thresholds, and what they are valid for."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from fedmd.config import ConfigError, Mode, RunConfig, Section, Share
from fedmd.defense.calibration import Limit
from fedmd.defense.samples.thresholds import Threshold
from fedmd.registry import register_threshold
from fedmd.storage import digest
from fedmd.training.burn_in import BurnIn
from fedmd.types import Json

FORMAT = 1


def validity(config: RunConfig, burn_in: BurnIn) -> Json:
    """What the scores of clean traffic depend on, as far as the server decides it, with a hash of the models.

    Where scores are averaged over a message or a round, also how many samples that is. Burn-in repeats bit for bit on
    one kind of machine only: calibrate where the server runs.
    """
    facts: Json = {
        "defense.detector": config.defense.detector_factory or config.defense.detector,
        "defense.detector_params": config.defense.detector_params.model_dump(),
        "defense.stopping": config.defense.stopping,
        "history": config.history.model_dump(),
        "model": config.model.model_dump(),
        "training.online": config.training.online.model_dump(),
        "burn-in models": model_hash(burn_in),
    }
    if config.defense.stopping != "per_sample":
        facts["stream.batch_size"] = config.stream.batch_size
        facts["clients in a round"] = config.federation.sampled_clients
    plain: Json = json.loads(json.dumps(facts))  # as it comes back from the file
    return plain


def model_hash(burn_in: BurnIn) -> str:
    """A hash of every burn-in snapshot."""
    tensors = [t.reshape(-1).contiguous().view(torch.uint8).numpy() for s in burn_in.snapshots for t in s.values()]
    return digest(*tensors)


def calibration_text(
    config: RunConfig, burn_in: BurnIn, limits: Sequence[Limit], *, confidence: float, versions: dict[str, str]
) -> Json:
    """What the file holds. `versions` are for its reader; they are not compared."""
    return {
        "format": FORMAT,
        "thresholds": [asdict(limit) for limit in limits],  # by online step; the last one holds ever after
        "fpr": share_above(config),
        "confidence": confidence,
        "valid_for": validity(config, burn_in),
        "versions": versions,
    }


def share_above(config: RunConfig) -> float:
    """The share of clean traffic that may lie above the thresholds, `threshold.fpr`.

    Raises ConfigError where the configured threshold has none, or one that cannot be measured.
    """
    fpr = getattr(config.threshold.params, "fpr", None)
    if fpr is None:
        raise ConfigError(f"threshold.name: fedmd calibrate needs quantile or calibrated, not {config.threshold.name}.")
    if not 0 < fpr < 1:
        raise ConfigError(f"threshold.fpr: must be between 0 and 1 for a calibration, not {fpr:g}.")
    return float(fpr)


@register_threshold("calibrated")
class Calibrated(Threshold):
    """Measured by fedmd calibrate on the operator's own clean stream (extension)."""

    modes: ClassVar[tuple[Mode, ...]] = ("stream",)

    class Params(Section):
        """Which calibration."""

        path: str | None = Field(None, description="the file that fedmd calibrate wrote")
        fpr: Share = Field(0.05, description="of the calibration")

        @model_validator(mode="after")
        def _needs_a_file(self) -> Self:
            if not self.path:
                raise ValueError("path must name a file that fedmd calibrate wrote, for threshold=calibrated")
            return self

    params: Params

    @property
    def file(self) -> Path:
        """The calibration."""
        return Path(self.params.path or "").expanduser()

    def prepare(self, run: RunConfig, burn_in: BurnIn) -> None:
        """Read the file. Raises ConfigError when it cannot be, or was made for another setting; it names that."""
        path = self.file
        try:
            stored = json.loads(path.read_text())
            steps = [float(entry["tolerance"]) for entry in stored["thresholds"]]
            made_for, stored_format = stored["valid_for"], stored["format"]
            if stored_format != FORMAT or not steps:
                raise ValueError(f"format {stored_format!r} is not {FORMAT}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"threshold.path: {path} is no file of fedmd calibrate ({error}).") from error
        here = validity(run, burn_in)
        for key in (*here, *made_for):
            if here.get(key) != made_for.get(key):
                raise ConfigError(
                    f"threshold.path: {path} was calibrated for {key}={_short(made_for.get(key))}, but this run has "
                    f"{_short(here.get(key))}; run fedmd calibrate again."
                )
        self._steps = steps

    def __call__(self, step: int, trusted: Callable[[], Tensor]) -> float:
        """The tolerance limit of this step; the last one holds ever after."""
        return self._steps[min(step, len(self._steps) - 1)]


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
