"""`fedmd calibrate`: thresholds from a clean run, saved for the server."""

from collections.abc import Sequence
from pathlib import Path

from fedmd.cli.arguments import Arguments
from fedmd.config import ConfigError
from fedmd.runs.compose import compose
from fedmd.runs.typed import typed_keys

USAGE = "FILE [--confidence 0.95] [--window ROUNDS] [KEY=VALUE ...]"


def calibrate(arguments: Sequence[str]) -> int:
    """Always 0. Raises ConfigError for whatever is wrong."""
    parser = Arguments("fedmd calibrate", USAGE)
    parser.add_argument("file", type=Path)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--window", type=int)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args(arguments)
    if "=" in options.file.name:
        raise ConfigError(f"the first argument is the file to write; usage: fedmd calibrate {USAGE}.")
    if not 0 < options.confidence < 1:
        raise ConfigError(f"--confidence: must be between 0 and 1, not {options.confidence:g}.")
    if options.window is not None and options.window < 0:
        raise ConfigError(f"--window: must be at least 0 rounds, not {options.window}.")
    if attack := [key for key in typed_keys(options.overrides) if key.partition(".")[0] == "attack"]:
        raise ConfigError(f"{attack[0]}: fedmd calibrate measures a stream that nobody attacks; leave it out.")
    config = compose([*options.overrides, "attack=none"]).config
    if config.mode != "stream":
        raise ConfigError(f"mode: fedmd calibrate is for mode=stream, not {config.mode}.")
    from fedmd.runs.calibration import calibrate as run  # torch is slow to import

    found = run(config, options.file, confidence=options.confidence, window=options.window)
    low, high = min(limit.tolerance for limit in found), max(limit.tolerance for limit in found)
    spread = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
    print(f"threshold {spread} nats from {found[0].n} clean scores each, {len(found)} step(s): {options.file}")
    print(f"use it with: threshold=calibrated threshold.path={options.file.absolute()}")
    return 0
