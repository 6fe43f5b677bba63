"""`fedmd calibrate`: thresholds from a clean run, saved for the server."""

from collections.abc import Sequence
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.runs.compose import compose
from fedmd.runs.typed import typed_keys


def calibrate(file: Path, overrides: Sequence[str], *, confidence: float, window: int | None) -> int:
    """Always 0. Raises ConfigError for whatever is wrong."""
    if "=" in file.name:
        raise ConfigError("the first argument is the file to write; usage: fedmd calibrate FILE [KEY=VALUE]...")
    if not 0 < confidence < 1:
        raise ConfigError(f"--confidence: must be between 0 and 1, not {confidence:g}.")
    if window is not None and window < 0:
        raise ConfigError(f"--window: must be at least 0 rounds, not {window}.")
    if attack := [key for key in typed_keys(overrides) if key.partition(".")[0] == "attack"]:
        raise ConfigError(f"{attack[0]}: fedmd calibrate measures a stream that nobody attacks; leave it out.")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: cannot be written, for there is no folder {file.absolute().parent}.")
    config = compose([*overrides, "attack=none"]).config
    if config.mode != "stream":
        raise ConfigError(f"mode: fedmd calibrate is for mode=stream, not {config.mode}.")
    from fedmd.runs.calibration import calibrate as run  # torch is slow to import

    found = run(config, file, confidence=confidence, window=window)
    low, high = min(limit.tolerance for limit in found), max(limit.tolerance for limit in found)
    spread = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    print(f"threshold {spread} nats from {found[0].n} clean scores each, {len(found)} step(s): {file}")
    print(f"use it with: threshold=calibrated threshold.path={file.absolute()}")
    return 0
