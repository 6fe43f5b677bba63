"""Tells whoever watches what happens in a folder's runs, as the runs themselves would, from what they write."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import read_summary, round_seconds
from fedmd.report.replay import recorded_rounds
from fedmd.runs.cell import Cell, Failure, Watcher
from fedmd.types import Stage
from fedmd.watch.folder import Seen, State, seen_runs

log = logging.getLogger(__name__)
_OVER = (State.FINISHED, State.FAILED)


@dataclass
class _Told:
    """What was said of a run so far."""

    cell: Cell
    rounds: int = 0
    state: State = State.WAITING


class Follower:
    """The runs at `path`. Raises ConfigError where there is none.

    What happened before anybody watched is told first; `clock` says when it was.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._told: dict[Path, _Told] = {}
        self._strange: set[Path] = set()  # of another version of fedmd
        self._at: float | None = min(run.began for run in seen_runs(path))

    def clock(self) -> float:
        """Seconds since 1970: of what is being told, or now."""
        return time.time() if self._at is None else self._at

    def look(self, watcher: Watcher) -> bool:
        """Tell what is new; whether all runs are over. Raises ConfigError where there is none that can be followed."""
        try:
            runs = [run for run in seen_runs(self._path) if run.folder not in self._strange]
        except ConfigError:
            if self._told and self._path.is_dir():  # its files are half there: a moment later they are whole
                return False
            raise
        self._count(runs, watcher)
        for run in runs:
            if (told := self._told.get(run.folder)) is not None:
                self._tell(run, told, watcher)
        self._at = None
        return all(run.state in _OVER for run in runs)

    def _count(self, runs: list[Seen], watcher: Watcher) -> None:
        """Say which runs are to come: at first, and when one turns up or goes on that was not among them."""
        first = not self._told
        alone = [run.folder for run in runs] == [self._path]
        going_on = {folder for folder, told in self._told.items() if told.state not in _OVER}
        new = (
            [run for run in runs if alone or run.state not in _OVER]
            if first
            else [run for run in runs if run.state not in _OVER and run.folder not in going_on]
        )
        for run in new:
            try:
                label = run.folder.resolve().name if alone else run.name
                self._told[run.folder] = _Told(Cell(RunConfig.parse(run.config), run.folder, label=label))
            except ConfigError as error:
                if alone:
                    raise ConfigError(f"fedmd watch: {run.folder} is of another version of fedmd ({error}).") from error
                log.warning("%s is of another version of fedmd and left out", run.folder)
                self._strange.add(run.folder)
        if first or new:
            waited_for = [told.cell for told in self._told.values() if told.state not in _OVER]
            watcher.begin(waited_for, len(runs) - len(waited_for))

    def _tell(self, run: Seen, told: _Told, watcher: Watcher) -> None:
        if told.state in _OVER:
            return
        self._at = run.began
        if told.state is State.WAITING and run.state is not State.WAITING:
            watcher.stage(told.cell, Stage("before its first round"))
        told.rounds = min(told.rounds, len(run.metrics))  # one that goes on from a checkpoint repeats some
        if len(run.metrics) > told.rounds:
            took = [round_seconds(row) for row in run.metrics]
            for number, report in enumerate(recorded_rounds(run.folder, run.metrics, told.rounds), told.rounds):
                self._at = run.latest - sum(took[number + 1 :])
                watcher.round(told.cell, report)
            told.rounds = len(run.metrics)
        if run.state is not told.state:
            self._at = run.latest
            self._end(run, told.cell, watcher)
        told.state = run.state

    def _end(self, run: Seen, cell: Cell, watcher: Watcher) -> None:
        if run.state is State.FINISHED and (summary := read_summary(run.folder)) is not None:
            watcher.finished(cell, summary)
        elif run.state is State.FAILED:
            watcher.failed(Failure(cell, run.why), again=False)
        elif run.state is State.STOPPED:
            watcher.say(f"{cell.name}: its server is gone; go on with fedmd run resume={run.folder}")
