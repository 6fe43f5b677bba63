"""What a run, a sweep or a study says while it goes on: plain lines."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedmd.report.monitoring.logs import round_line
from fedmd.runs.cell import Cell, Failure, Watcher
from fedmd.types import Json, RoundReport, Stage

_QUIET_S = 5.0  # of several cells at once: how long nothing is said at most, while something happens


class Lines(Watcher):
    """Of a run a line a round; of several a line for each that is finished, and now and then what the others do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = clock()
        self._of = self._done = 0
        self._alone = True
        self._began: dict[Path, float] = {}
        self._doing: dict[Path, str] = {}

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)
        self._said = self._clock()

    def begin(self, cells: Sequence[Cell], finished: int) -> None:
        """Count them."""
        self._of, self._done = len(cells) + finished, finished
        self._alone = self._of == 1

    def stage(self, cell: Cell, stage: Stage) -> None:
        """A line, of a run that is alone."""
        self._began.setdefault(cell.folder, self._clock())
        self._did(cell, f"{stage.name} {stage.done}/{stage.steps}" if stage.steps else stage.name)

    def round(self, cell: Cell, report: RoundReport) -> None:
        """The same."""
        line = round_line(report, cell.config.stream.rounds)
        self._did(cell, line if self._alone else "  ".join(line.split()[:3]))

    def finished(self, cell: Cell, summary: Json) -> None:
        """A line, of one among several."""
        seconds = self._over(cell)
        self._done += 1
        if not self._alone:
            final = 100 * summary["accuracy"]["final"]
            self.say(f"[{self._done:>3}/{self._of}] {cell.name:<32} final {final:5.1f} %  {seconds:6.1f} s")

    def failed(self, failure: Failure, *, again: bool) -> None:
        """A line on standard error."""
        self._over(failure.cell)
        then = "it is tried once more, from its checkpoint" if again else "it is given up, the others go on"
        print(f"fedmd: {failure.cell.name} failed, {failure.reason}; {then}.", file=sys.stderr, flush=True)

    def _over(self, cell: Cell) -> float:
        """The seconds since the cell was first heard of."""
        self._doing.pop(cell.folder, None)
        return self._clock() - self._began.pop(cell.folder, self._clock())

    def _did(self, cell: Cell, what: str) -> None:
        self._doing[cell.folder] = f"{cell.name}: {what}"
        if not cell.config.runtime.progress:
            return
        if self._alone:
            self.say(what)
        elif self._clock() - self._said >= _QUIET_S:
            self.say("running: " + "; ".join(self._doing.values()))
