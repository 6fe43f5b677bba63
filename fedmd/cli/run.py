"""`fedmd run` and `fedmd compare`: Hydra's overrides and flags, composed and handed on."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fedmd.cli.start_up import starting_up
from fedmd.config import ConfigError
from fedmd.runs.cell import Watcher
from fedmd.runs.compose import Composed, compose_raw, expand, resumed_folder, validated, without_hydra
from fedmd.runs.places import require_places
from fedmd.runs.plan import compose_study
from fedmd.runs.processes import start_early
from fedmd.runs.progress import watching
from fedmd.runs.tuning import asks_for_search, compose_search, run_search
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys

# Flags of Hydra's that people type, and what there is instead.
_INSTEAD = {
    "config_name": "--config-name: there is one configuration, conf/config.yaml; put settings of your own into "
    "DIR/experiment/NAME.yaml and say --config-dir DIR experiment=NAME",
    "config_path": "--config-path: there is one configuration, conf/config.yaml; --config-dir DIR adds options",
    "info": "--info: fedmd list names what there is, fedmd run --cfg all prints what Hydra composed, fedmd doctor has "
    "the versions",
    "hydra_help": "--hydra-help: fedmd run --help explains every setting and flag that fedmd takes",
}
REFUSED = 3  # exit code: there is a run in which every message was refused
_PARTS = ("job", "hydra", "all")


def refuse_flags(**flags: object) -> None:
    """Raise ConfigError for a flag of Hydra's that fedmd has something else for."""
    for flag, value in flags.items():
        if value:
            raise ConfigError(f"{_INSTEAD[flag]}.")


def with_config_dirs(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """The overrides, and the folders of options as Hydra's search path. Raises ConfigError where there is no folder."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: there is no folder {folder}.")
    if not folders:
        return list(overrides)
    return [*overrides, f"hydra.searchpath=[{','.join(f'file://{folder.absolute()}' for folder in folders)}]"]


def print_configuration(
    overrides: Sequence[str], part: str, package: str | None, *, resolve: bool, multirun: bool
) -> int:
    """Print what would run, one YAML document a run. Raises ConfigError for what cannot run."""
    if part not in _PARTS:
        raise ConfigError(f"--cfg: {part!r} is not one of {', '.join(_PARTS)}.")
    if resumed_folder(overrides) is not None:
        raise ConfigError("resume: takes no --cfg; the run's settings are in its config.json.")
    if asks_for_search(overrides):
        runs: list[Sequence[str]] = [compose_search(overrides).example.overrides]
    else:
        refuse_hydra(typed_keys(overrides), "sweep" if multirun else "run")
        runs = [*expand(overrides)] if multirun else [overrides]
    raw = [compose_raw(said) for said in runs]
    _validated(raw, runs, sweep=multirun)
    texts = []
    for composed in raw:
        parts = {"job": without_hydra(composed), "hydra": OmegaConf.masked_copy(composed, ["hydra"]), "all": composed}
        tree: Any = parts[part]
        if package is not None and (tree := OmegaConf.select(tree, package)) is None:
            raise ConfigError(f"--package: the configuration has no {package}.")
        texts.append(OmegaConf.to_yaml(tree, resolve=resolve) if OmegaConf.is_config(tree) else f"{tree}\n")
    print("\n---\n".join(texts), end="")
    return 0


def run(overrides: Sequence[str], *, multirun: bool, quiet: bool) -> int:
    """Launch one run, those of a sweep, or a search; or go on with a killed run."""
    if (folder := resumed_folder(overrides)) is not None:
        if multirun:
            raise ConfigError("resume: takes no -m; one run goes on.")
        with _watching("run", overrides, quiet) as watcher:
            from fedmd.runs.launch import resume

            return REFUSED if resume(folder, watcher) else 0
    if asks_for_search(overrides):
        if not multirun:
            raise ConfigError("hydra/sweeper: add -m; a search makes many runs.")
        run_search(compose_search(overrides))
        return 0
    with _watching("run -m" if multirun else "run", overrides, quiet) as watcher:
        with starting_up():
            refuse_hydra(typed_keys(overrides), "sweep" if multirun else "run")
            runs = [*expand(overrides)] if multirun else [overrides]
            first = compose_raw(runs[0])
            require_places(first)
            _start_early(first, len(runs))
            composed = _validated([first, *map(compose_raw, runs[1:])], runs, sweep=multirun)
            from fedmd.runs.launch import launch  # Flower and torch are slow to import; somebody watches already

        return REFUSED if launch(composed, watcher, sweep=multirun) else 0


def compare(overrides: Sequence[str], *, quiet: bool) -> int:
    """Run a study."""
    with _watching("compare", overrides, quiet) as watcher:
        with starting_up():
            refuse_hydra(typed_keys(overrides), "compare")
            require_places(raw := compose_raw(overrides))
            _start_early(raw)
            study = compose_study(overrides)
            from fedmd.runs.study import run_study

        return REFUSED if run_study(study, watcher) else 0


def _watching(command: str, overrides: Sequence[str], quiet: bool) -> AbstractContextManager[Watcher]:
    """From the first moment on: even composing the settings of a study takes seconds."""
    live = not any(override.lower() == "runtime.progress=false" for override in overrides)
    return watching(f"fedmd {command} {' '.join(overrides)}", quiet=quiet, live=live)


def _start_early(composed: DictConfig, runs: int = 2) -> None:
    """Where several runs are likely to be computed side by side on this machine."""
    runtime = composed.runtime
    alone = runtime.engine != "auto" or runtime.spread == "clients" or runtime.ray_address is not None
    if runs > 1 and not alone and (os.cpu_count() or 1) > 1:
        start_early()


def _validated(raw: Sequence[DictConfig], runs: Sequence[Sequence[str]], *, sweep: bool) -> list[Composed]:
    """What would run, of what Hydra composed. Raises ConfigError for what cannot, or was typed in vain."""
    composed = [validated(each, overrides, sweep=sweep) for each, overrides in zip(raw, runs, strict=True)]
    refuse_unused(composed)
    return composed
