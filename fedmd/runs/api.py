"""`fedmd run`, `fedmd compare` and the reading of their folders, as functions for scripts and notebooks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.report import loading
from fedmd.report.results import ReportError, Run, Study
from fedmd.runs.cell import Watcher
from fedmd.runs.compose import compose, resumed_folder
from fedmd.runs.plan import compose_study
from fedmd.runs.progress import Lines
from fedmd.runs.typed import refuse_hydra, refuse_unused, typed_keys

Setting = str | bool | int | float | Sequence[object] | None


def run(*overrides: str, folder: Path | str | None = None, progress: bool = False, **settings: Setting) -> Run:
    """One federation, from start to end.

        >>> run = fedmd.run("experiment=smoke", "attack.fraction=0.5", defense="drop", seed=1, folder=f"{work}/one")
        >>> run.summary["defense"]["name"], run.config["attack"]["fraction"], len(run.rounds)
        ('drop', 0.5, 4)
        >>> int(run.clients["malicious"].sum())
        2

    Args:
        overrides: settings as on the command line, such as "attack.fraction=0.2". "resume=FOLDER" alone goes on with
            a run that was killed.
        folder: for the run; without one it is of the day and the time, in outputs/.
        progress: whether to print a line a round, and where things lie.
        settings: settings without a dot in their name, such as defense="dsc" or seed=3.

    Raises:
        ConfigError: a setting is wrong, or data cannot be had.
    """
    from fedmd.runs import launch  # slow to import, and wrong settings are found without

    said = [*overrides, *as_overrides(settings)]
    watcher = Lines() if progress else Watcher()
    if (killed := resumed_folder(said)) is not None:
        launch.resume(killed, watcher)
        return Run.read(killed)
    refuse_hydra(typed_keys(said), "run")
    composed = compose(said)
    refuse_unused([composed])
    if folder is not None:
        composed = replace(composed, folder=Path(folder).absolute())
    launch.launch([composed], watcher)
    return Run.read(composed.folder)


def compare(*overrides: str, folder: Path | str | None = None, progress: bool = False, **settings: Setting) -> Study:
    """The study of an experiment: its arms at every seed. Finished runs are skipped.

        >>> study = fedmd.compare("compare.seeds=[0]", experiment="smoke", folder=f"{work}/study")
        >>> study.results[["arm", "label", "seed"]].values.tolist()[-2:]
        [['dsc', 'DSC', 0], ['dsc_no_attack', 'DSC, no attack', 0]]

    Args:
        overrides: settings as on the command line; experiment=NAME, or `experiment` among the settings, is the study.
        folder: for the study; without one it is comparisons/NAME.
        progress: whether to print what is going on, and the table.
        settings: as of `run`.

    Raises:
        ConfigError: as `run`, and where an arm is not what it must be.
    """
    composed = compose_study([*overrides, *as_overrides(settings)])
    if folder is not None:
        composed = replace(composed, folder=Path(folder).absolute())
    from fedmd.runs.study import run_study

    run_study(composed, Lines() if progress else Watcher())
    found = load(composed.folder)
    assert isinstance(found, Study)
    return found


def load(path: Path | str) -> Run | Study:
    """What lies in a folder: a finished run, or the runs of a sweep or a comparison.

    Raises:
        ConfigError: there is none.
    """
    try:
        return loading.load(Path(path))
    except ReportError as error:
        raise ConfigError(str(error)) from error


def as_overrides(settings: Mapping[str, Setting]) -> list[str]:
    """{"defense": "dsc", "seed": 3} as ["defense=dsc", "seed=3"]."""
    return [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
