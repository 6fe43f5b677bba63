"""What the user typed and no run would use is refused by name.

What a preset says (an option's file, an experiment's shared settings) may lie idle: `experiment=demo defense=none` has
the experiment's threshold and no use for it. What was typed, on the command line or among an arm's overrides, may lie
idle in some runs of a sweep or a study, as threshold.fpr does in its undefended arms, but not in all.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from fedmd.config import ConfigError
from fedmd.config.unused import unused
from fedmd.runs.compose import Composed
from fedmd.runs.options import rewritten

Command = Literal["run", "sweep", "search", "compare"]

# Hydra's own settings, of which fedmd takes some.
_FOLDERS: Mapping[Command, tuple[str, ...]] = {
    "run": ("hydra.run.dir",),
    "sweep": ("hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.config.override_dirname"),
    "search": ("hydra.sweep.dir",),
    "compare": ("hydra.sweep.dir",),
}
_INSTEAD = {
    "hydra/launcher": "fedmd spreads runs over the cores itself; runtime.workers=N says over how many",
    "hydra.launcher": "fedmd spreads runs over the cores itself; runtime.workers=N says over how many",
    "hydra.run": "is for a single run; the folder of a sweep or a study is hydra.sweep.dir",
    "hydra.sweep": "is for fedmd run -m and fedmd compare; a single run's folder is hydra.run.dir",
    "hydra/sweeper": "is for fedmd run -m",
    "hydra.sweeper": "what a search tries is said by tune.trials, tune.seeds and tune.space",
    "hydra.job.chdir": "a run keeps the current folder; its own is hydra.run.dir",
    "hydra.verbose": "what a run logs is chosen by observability.json_logs and runtime.progress",
}


def refuse_unused(runs: Sequence[Composed]) -> None:
    """Raise ConfigError for the first setting that was typed for some of the `runs` and that none of these uses."""
    reasons: dict[str, str] = {}
    used: set[str] = set()
    for run in runs:
        idle = unused(run.config)
        for key in typed_keys(run.overrides):
            reason = next((why for name, why in idle.items() if f"{key}.".startswith(f"{name}.")), None)
            if reason is None:
                used.add(key)
            else:
                reasons.setdefault(key, reason)
    for key, reason in reasons.items():
        if key not in used:
            nobody = "this run does not use it" if len(runs) == 1 else "none of these runs uses it"
            raise ConfigError(f"{key}: {reason}; {nobody}, so leave it out.")


def refuse_hydra(keys: Iterable[str], command: Command) -> None:
    """Raise ConfigError for a setting of Hydra's own, of a study or of a search, that the command has no use for.

    Before anything is composed: Hydra's sentences about its own groups help nobody.
    """
    for key in sorted(keys):
        if command != "compare" and f"{key}.".startswith("compare."):
            raise ConfigError(f"{key}: is for fedmd compare.")
        if command != "search" and f"{key}.".startswith("tune."):
            raise ConfigError(f"{key}: is for a search, fedmd run -m hydra/sweeper=optuna.")
        if key.partition(".")[0].partition("/")[0] != "hydra" or key == "hydra.searchpath":
            continue
        if not any(f"{key}.".startswith(f"{taken}.") for taken in _FOLDERS[command]):
            taken = ", ".join((*_FOLDERS[command], "hydra.searchpath"))
            instead = next((why for place, why in _INSTEAD.items() if f"{key}.".startswith(f"{place}.")), None)
            raise ConfigError(f"{key}: {instead or f'of Hydra settings only {taken} are taken here'}.")


def typed_keys(overrides: Iterable[str]) -> list[str]:
    """The dotted keys of overrides, `+` and `~` left out, old names as new ones."""
    return [rewritten(override).partition("=")[0].lstrip("+~") for override in overrides]
