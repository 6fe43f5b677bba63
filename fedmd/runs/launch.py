"""From composed configurations to finished run folders: skip what is done, run the rest, say where it lies."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import REPORT, read_summary
from fedmd.report.html.write import write_report
from fedmd.report.scores import held_score, scores_of
from fedmd.rounds.checkpoint import has_finished, note_config, noted_config, sole_server, tidy
from fedmd.runs.compose import Composed, make_folder
from fedmd.runs.federation import Observer, print_round
from fedmd.runs.simulation import Cell, simulate
from fedmd.types import Json, RoundReport

Tell = Callable[[str], None]
say: Tell = partial(print, flush=True)


def keep_quiet(line: str) -> None:
    """In the place of `say`."""


def ignore_round(config: RunConfig, report: RoundReport) -> None:
    """In the place of `print_round`."""


def launch(
    runs: Sequence[Composed], *, skip_finished: bool, tell: Tell = say, on_round: Observer = print_round
) -> None:
    """Run `runs` one after another, and write their report. Raises ConfigError as `simulate` does."""
    pending = [run for run in runs if not (skip_finished and is_finished(Cell(run.config, run.folder)))]
    if skipped := len(runs) - len(pending):
        tell(f"{skipped} of {len(runs)} runs are finished and skipped")
    for run in pending:
        make_folder(run.folder)
        with sole_server(run.folder):  # a run that is going on there keeps its own configuration
            note_config(run.folder, run.config)
            run.write_hydra_files()
    cells = [Cell(run.config, run.folder) for run in pending]
    simulate(cells, on_round=on_round, on_finished=partial(announce, tell=tell))
    if runs:
        shared = Path(os.path.commonpath([run.folder for run in runs]))  # of a sweep the folder around its runs
        tell(f"report: {write_report(shared)}")


def resume(folder: Path, *, tell: Tell = say, on_round: Observer = print_round) -> None:
    """Go on with the run in `folder`, killed at whatever moment. Of one that has finished only what is missing is made.

    Raises ConfigError as `simulate` does, and when there is no run, or one that this version cannot go on with.
    """
    folder = folder.expanduser().absolute()
    if has_finished(folder):
        tidy(folder)
        if not (folder / REPORT).exists():
            write_report(folder)
        tell(f"run folder: {folder} holds a finished run; there is nothing to resume")
        return
    config = noted_config(folder)
    with sole_server(folder):  # said before Ray is started
        pass
    simulate([Cell(config, folder, resume=True)], on_round=on_round, on_finished=partial(announce, tell=tell))
    tell(f"report: {write_report(folder)}")


def is_finished(cell: Cell) -> bool:
    """Whether the cell's folder holds the summary of this very configuration."""
    summary = read_summary(cell.folder)
    if summary is None:
        return False
    try:
        of_the_run = RunConfig.parse(summary["config"])  # an older run knows nothing of settings that came later
    except ConfigError:
        return False
    return of_the_run.decisive() == cell.config.decisive()


def announce(cell: Cell, summary: Json, *, tell: Tell = say) -> None:
    """The run in four lines."""
    accuracy = summary["accuracy"]
    steps = " -> ".join(f"{name} {100 * accuracy[name]:.1f}" for name in accuracy if accuracy[name] is not None)
    auroc = summary["detection"]["detector"]["sample"]["auroc"]
    tell(f"accuracy in %: {steps}")
    detector = held_score(scores_of(summary)).label.lower()
    strategy = f"strategy {cell.config.strategy.name}, " if cell.config.mode == "update" else ""
    shown = "--" if auroc is None else f"{auroc:.3f}"
    tell(f"{strategy}defence {cell.config.defense.name}, AUROC of the {detector} {shown}")
    tell(f"audit head: {summary['audit_head']['seq']}:{summary['audit_head']['hash']}")
    tell(f"run folder: {cell.folder}")
