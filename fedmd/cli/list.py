"""`fedmd list`: the plug-ins there are, those of installed packages included."""

from collections.abc import Sequence
from textwrap import shorten

from fedmd.config import ConfigError
from fedmd.registry import REGISTRIES

_KINDS = {
    "attacks": "attack",
    "defences": "defense",
    "detectors": "detector",
    "thresholds": "threshold",
    "histories": "history",
    "strategies": "strategy",
    "models": "model",
    "data": "data",
}


def list_plugins(arguments: Sequence[str]) -> int:
    """Always 0. Raises ConfigError for a kind that there is not."""
    asked = ["defences" if kind == "defenses" else kind for kind in arguments]
    if unknown := [kind for kind in asked if kind not in _KINDS]:
        raise ConfigError(f"{unknown[0]!r} is nothing to list; kinds: {', '.join(_KINDS)}.")
    for kind in asked or _KINDS:
        print(kind)
        listed = REGISTRIES[_KINDS[kind]].listed()
        of_one_mode = any(len(each.modes) == 1 for each in listed)  # models, say, are for both
        for each in listed:
            mode = f"{each.modes[0] if len(each.modes) == 1 else 'both modes':<12}" if of_one_mode else ""
            print(f"  {each.name:<24}{mode}{each.origin:<12}{shorten(each.summary, 110, placeholder=' ...')}")
        print()
    return 0
