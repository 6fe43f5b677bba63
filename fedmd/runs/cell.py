"""A cell, one run among those that are started together, and who is told how it gets on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmd.config import RunConfig
from fedmd.types import Json, RoundReport, Stage


@dataclass(frozen=True)
class Cell:
    """One run: its configuration, the folder it fills, and whether it goes on from the checkpoint there.

    `label` is what people call it.
    """

    config: RunConfig
    folder: Path
    resume: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        """Its label, or else its folder's name."""
        return self.label or self.folder.name


@dataclass(frozen=True)
class Failure:
    """A cell that did not come to its end, and why."""

    cell: Cell
    reason: str


class CellsFailed(RuntimeError):
    """Some cells failed, twice each; all others have finished. The message is one sentence that names them."""

    def __init__(self, failures: Sequence[Failure], cells: int) -> None:
        told = "; ".join(f"{failure.cell.name} ({failure.reason})" for failure in failures)
        many = f"{len(failures)} of {cells} runs" if cells > 1 else "the run"
        super().__init__(f"{many} failed: {told}. The same command goes on with what is missing.")


class Watcher:
    """Is told what goes on, in the process that has started the cells. This one keeps quiet."""

    def say(self, text: str) -> None:
        """Something for people to read, in whole lines."""

    def doing(self, what: str) -> None:
        """What keeps all cells waiting: libraries, data, Ray."""

    def begin(self, cells: Sequence[Cell], finished: int) -> None:
        """These are about to be run; so many others had finished before."""

    def stage(self, cell: Cell, stage: Stage) -> None:
        """The cell is being computed, and has not come to its first round."""

    def round(self, cell: Cell, report: RoundReport) -> None:
        """A round of the cell is over."""

    def finished(self, cell: Cell, summary: Json) -> None:
        """The cell is complete; its summary is on disk."""

    def failed(self, failure: Failure, *, again: bool) -> None:
        """The cell broke off, and is tried again, from its checkpoint, or given up."""
