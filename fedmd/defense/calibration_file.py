"""The file that `fedmd calibrate` writes and threshold=calibrated reads: thresholds, and what they are valid for."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from fedmd.config import ConfigError, RunConfig, ThresholdConfig
from fedmd.defense.calibration import Limit
from fedmd.defense.samples.thresholds import Threshold
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
        "defense.detector": config.defense.detector,
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
        "fpr": config.threshold.fpr,
        "confidence": confidence,
        "valid_for": validity(config, burn_in),
        "versions": versions,
    }


def threshold_for(config: RunConfig, burn_in: BurnIn) -> Threshold | ThresholdConfig:
    """The calibrated threshold of threshold.path where that is the one configured, else the configuration itself.

    Raises ConfigError when the file cannot be read or was made for another setting; the sentence names it.
    """
    if config.threshold.name != "calibrated":
        return config.threshold
    path = Path(config.threshold.path or "").expanduser()
    try:
        stored = json.loads(path.read_text())
        steps = [float(entry["tolerance"]) for entry in stored["thresholds"]]
        made_for, stored_format = stored["valid_for"], stored["format"]
        if stored_format != FORMAT or not steps:
            raise ValueError(f"format {stored_format!r} is not {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"threshold.path: {path} is no file of fedmd calibrate ({error}).") from error
    here = validity(config, burn_in)
    for key in (*here, *made_for):
        if here.get(key) != made_for.get(key):
            raise ConfigError(
                f"threshold.path: {path} was calibrated for {key}={_short(made_for.get(key))}, but this run has "
                f"{_short(here.get(key))}; run fedmd calibrate again."
            )
    return lambda step, trusted: steps[min(step, len(steps) - 1)]


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value)
