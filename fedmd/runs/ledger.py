"""What becomes of cells: one that fails is tried again from its checkpoint, and given up the second time."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.runs.cell import Cell, Failure, Watcher
from fedmd.storage import write_text
from fedmd.types import Json

OnFinished = Callable[[Cell, Json], None]
TRACEBACK = "traceback.txt"  # in the folder of a cell that failed
_ATTEMPTS = 2


@dataclass(frozen=True)
class Broken:
    """How a cell broke off. `final`: a new attempt would be no better, as the user must mend something."""

    reason: str
    final: bool = False


def broken(cell: Cell, error: Exception) -> Broken:
    """What there is to say of a cell that raised `error`. The traceback goes into its folder."""
    if isinstance(error, ConfigError):
        return Broken(str(error).removesuffix("."), final=True)
    told = " ".join(f"{type(error).__name__}: {error}".split())
    try:
        write_text(cell.folder / TRACEBACK, "".join(traceback.format_exception(error)))
    except OSError:  # a full disk may be what it is about
        return Broken(told)
    return Broken(f"{told}, see {cell.folder / TRACEBACK}")


class Ledger:
    """Who has finished, and who has failed how often."""

    def __init__(self, watcher: Watcher, on_finished: OnFinished) -> None:
        self.failures: list[Failure] = []
        self._watcher, self._on_finished = watcher, on_finished
        self._attempts: dict[Path, int] = {}

    def finished(self, cell: Cell, summary: Json) -> None:
        """Say so."""
        (cell.folder / TRACEBACK).unlink(missing_ok=True)  # of the attempt before
        self._watcher.finished(cell, summary)
        self._on_finished(cell, summary)

    def failed(self, cell: Cell, how: Broken) -> Cell | None:
        """Say so. The cell to try again, which goes on from its checkpoint, or None."""
        attempts = self._attempts[cell.folder] = self._attempts.get(cell.folder, 0) + 1
        again = attempts < _ATTEMPTS and not how.final
        failure = Failure(cell, how.reason)
        self._watcher.failed(failure, again=again)
        if again:
            return replace(cell, resume=True)
        self.failures.append(failure)
        return None
