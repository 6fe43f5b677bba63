"""What a run, a sweep or a study says while it goes on: a live display on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.live import Live

from fedmd.report.monitoring.board import Board
from fedmd.report.monitoring.logs import round_line
from fedmd.runs.cell import Cell, Failure, Watcher
from fedmd.types import Json, RoundReport, Stage

_QUIET_S = 5.0  # of several cells at once: how long nothing is said at most, while something happens


@contextmanager
def watching(
    title: str,
    *,
    quiet: bool,
    live: bool,
    console: Console | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Watcher]:
    """Who watches for the command line: nobody if `quiet`, a display where there is a terminal and `live`, or lines.

    The display is there at once: what comes next takes seconds to import. `clock` gives the seconds that it counts.
    """
    console = console or Console()
    if quiet:
        yield Watcher()
    elif live and console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf"):
        with Display(title, console, clock) as display:
            yield display
    else:
        yield Lines()


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

    def doing(self, what: str) -> None:
        """Print it."""
        self.say(what)

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
        rounds = cell.config.stream.rounds
        short = f"{report.phase} {report.round + 1}/{rounds}"
        self._did(cell, round_line(report, rounds) if self._alone else short)

    def finished(self, cell: Cell, summary: Json) -> None:
        """A line, of one among several."""
        seconds = self._over(cell)
        self._done += 1
        if not self._alone:
            self.say(finished_line(self._done, self._of, cell, summary, seconds))

    def failed(self, failure: Failure, *, again: bool) -> None:
        """A line on standard error."""
        self._over(failure.cell)
        print(failure_line(failure, again), file=sys.stderr, flush=True)

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


class Display(Watcher):
    """A board that is drawn anew four times a second until the last run is over; lines go above it, then below."""

    def __init__(self, title: str, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._board = Board(title, clock)
        self._live = Live(get_renderable=lambda: self._board, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._live.transient = kind is not None  # what has come to nothing need not stay
        self._live.stop()

    def say(self, text: str) -> None:
        """Print it as it is, however wide."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def doing(self, what: str) -> None:
        """Show it; when all runs are over, as a line."""
        self._board.doing = what
        if not self._live.is_started:
            self.say(what)

    def begin(self, cells: Sequence[Cell], finished: int) -> None:
        """Count them."""
        self._board.begin([cell.name for cell in cells], finished)
        self._end()

    def stage(self, cell: Cell, stage: Stage) -> None:
        """Show it."""
        self._board.stage(cell.name, cell.config.stream.rounds, stage)

    def round(self, cell: Cell, report: RoundReport) -> None:
        """Show it."""
        self._board.round(cell.name, cell.config.stream.rounds, report)

    def finished(self, cell: Cell, summary: Json) -> None:
        """A line, of one among several."""
        seconds = self._board.over(cell.name, failed=False)
        if self._board.of > 1:
            self.say(finished_line(self._board.before + self._board.finished, self._board.of, cell, summary, seconds))
        self._end()

    def failed(self, failure: Failure, *, again: bool) -> None:
        """A line."""
        self._board.over(failure.cell.name, failed=True, again=again)
        self.say(failure_line(failure, again))
        self._end()

    def _end(self) -> None:
        if self._board.is_over:
            self._live.stop()


def finished_line(done: int, of: int, cell: Cell, summary: Json, seconds: float) -> str:
    """Of one run among several."""
    return f"[{done:>3}/{of}] {cell.name:<32} final {100 * summary['accuracy']['final']:5.1f} %  {seconds:6.1f} s"


def failure_line(failure: Failure, again: bool) -> str:
    """Of a run that broke off."""
    then = "it is tried once more, from its checkpoint" if again else "it is given up, the others go on"
    return f"fedmd: {failure.cell.name} failed, {failure.reason}; {then}."
