"""fedmd: federated streaming learning under accumulative poisoning, defended by Memorization Discrepancy.

    >>> import fedmd
    >>> run = fedmd.run("experiment=smoke", "attack.fraction=0.5", defense="drop", folder=f"{work}/run")
    >>> run.rounds[["round", "phase", "accuracy"]].shape
    (4, 3)
    >>> study = fedmd.compare("compare.seeds=[0]", experiment="smoke", folder=f"{work}/study")
    >>> [arm for arm in study.arms]
    ['frozen', 'no_attack', 'undefended', 'dsc', 'dsc_no_attack']
    >>> study.paired("undefended", "no_attack")["n"]
    1
    >>> fedmd.load(f"{work}/run").summary == run.summary
    True

The names in `__all__` are public and follow semantic versioning: within a major version they keep what they take and
return. So do the settings, the command line, and the files of a run. What is not exported may change in any release.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmd.attacks.accumulative import craft_accumulative, steering_direction
    from fedmd.attacks.base import Attack
    from fedmd.attacks.trigger import craft_trigger
    from fedmd.config import ConfigError, Section
    from fedmd.defense.base import Defense
    from fedmd.defense.discrepancy import memorization_discrepancy
    from fedmd.defense.samples.correction import correct
    from fedmd.defense.samples.detectors.base import Detector
    from fedmd.defense.samples.pipeline import Pipeline
    from fedmd.flower.strategies.screening import DiscrepancyScreening
    from fedmd.registry import (
        register_attack,
        register_data,
        register_defense,
        register_detector,
        register_history,
        register_model,
        register_strategy,
        register_threshold,
    )
    from fedmd.report.results import Run, Study
    from fedmd.runs.api import compare, load, run

__all__ = [
    "Attack",
    "ConfigError",
    "Defense",
    "Detector",
    "DiscrepancyScreening",
    "Pipeline",
    "Run",
    "Section",
    "Study",
    "compare",
    "correct",
    "craft_accumulative",
    "craft_trigger",
    "load",
    "memorization_discrepancy",
    "register_attack",
    "register_data",
    "register_defense",
    "register_detector",
    "register_history",
    "register_model",
    "register_strategy",
    "register_threshold",
    "run",
    "steering_direction",
]

_MODULES = {  # imported when one of their names is first asked for: `import fedmd` costs nothing
    "fedmd.attacks.accumulative": ("craft_accumulative", "steering_direction"),
    "fedmd.attacks.base": ("Attack",),
    "fedmd.attacks.trigger": ("craft_trigger",),
    "fedmd.config": ("ConfigError", "Section"),
    "fedmd.defense.base": ("Defense",),
    "fedmd.defense.discrepancy": ("memorization_discrepancy",),
    "fedmd.defense.samples.correction": ("correct",),
    "fedmd.defense.samples.detectors.base": ("Detector",),
    "fedmd.defense.samples.pipeline": ("Pipeline",),
    "fedmd.flower.strategies.screening": ("DiscrepancyScreening",),
    "fedmd.registry": tuple(
        f"register_{kind}"
        for kind in ("attack", "data", "defense", "detector", "history", "model", "strategy", "threshold")
    ),
    "fedmd.report.results": ("Run", "Study"),
    "fedmd.runs.api": ("compare", "load", "run"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("fedmd")
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module 'fedmd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
