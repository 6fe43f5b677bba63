"""From composed configurations to finished run folders: skip what is done, run the rest, say where it lies."""

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from logging import getLogger
from pathlib import Path

from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import REPORT, read_metrics, read_summary
from fedmd.report.html.write import write_report
from fedmd.report.loading import load
from fedmd.report.results import Study, write_parquet
from fedmd.report.scores import held_score, scores_of
from fedmd.rounds.checkpoint import tidy
from fedmd.rounds.folder import has_finished, note_config, noted_config, sole_server
from fedmd.runs.cell import Cell, CellsFailed, Watcher
from fedmd.runs.compose import Composed, make_folder
from fedmd.runs.simulation import simulate
from fedmd.storage import write_text
from fedmd.types import Json

log = getLogger(__name__)


def launch(runs: Sequence[Composed], watcher: Watcher, *, sweep: bool = False) -> list[Cell]:
    """Run `runs`, and write their report. A sweep skips what is finished, and goes on with what was under way.

    Those come back in which every message was refused; a warning has said so.

    Raises ConfigError as `simulate` does, and CellsFailed when all is done but some runs.
    """
    pending = [run for run in runs if not (sweep and is_finished(Cell(run.config, run.folder)))]
    if skipped := len(runs) - len(pending):
        watcher.say(f"{skipped} of {len(runs)} runs are finished and skipped")
    shared = Path(os.path.commonpath([run.folder for run in runs])) if runs else Path()  # around a sweep's runs
    for run in pending:
        make_folder(run.folder)
        with sole_server(run.folder):  # a run that is going on there keeps its own configuration
            note_config(run.folder, run.config)
            run.write_hydra_files()
    cells = [
        Cell(run.config, run.folder, resume=sweep, label=str(run.folder.relative_to(shared)) if sweep else "")
        for run in pending
    ]
    watcher.begin(cells, skipped)
    failures = simulate(cells, watcher, on_finished=partial(announce, watcher))
    if len(failures) < len(runs):
        watcher.doing("writing the report")
        watcher.say(f"report: {write_report(shared)}")
        if sweep and isinstance(found := load(shared), Study):  # a sweep of one run is that run
            write_text(shared / "results.csv", found.results.to_csv(index=False, lineterminator="\n"))
            write_parquet(found.results, shared)
    if failures:
        raise CellsFailed(failures, len(runs))
    return refused_altogether(cells)


def resume(folder: Path, watcher: Watcher) -> list[Cell]:
    """Go on with the run in `folder`, killed at whatever moment. Of one that has finished only what is missing is made.

    It comes back if every message in it was refused; a warning has said so.

    Raises ConfigError as `simulate` does, and when there is no run, or one that this version cannot go on with.
    """
    folder = folder.expanduser().absolute()
    if has_finished(folder):
        tidy(folder)
        if not (folder / REPORT).exists():
            write_report(folder)
        watcher.say(f"run folder: {folder} holds a finished run; there is nothing to resume")
        return []
    config = noted_config(folder)
    with sole_server(folder):  # said before Ray is started
        pass
    cells = [Cell(config, folder, resume=True)]
    watcher.begin(cells, 0)
    if failures := simulate(cells, watcher, on_finished=partial(announce, watcher)):
        raise CellsFailed(failures, 1)
    watcher.say(f"report: {write_report(folder)}")
    return refused_altogether(cells)


def refused_altogether(cells: Sequence[Cell]) -> list[Cell]:
    """Those of the finished `cells` whose server accepted no message in any round; a warning says why."""
    found = []
    for cell in cells:
        rounds = read_metrics(cell.folder)
        reasons = Counter(refused["reason"] for row in rounds for refused in row["rejections"])
        if reasons and not any(row["clients"] for row in rounds):
            found.append(cell)
            ((reason, _),) = reasons.most_common(1)
            log.warning("%s: every message of the run was refused; most often: %s", cell.folder, reason)
    return found


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


def announce(watcher: Watcher, cell: Cell, summary: Json) -> None:
    """The run in four lines."""
    tell = watcher.say
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
