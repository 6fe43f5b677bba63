"""Which grids there are, told apart without importing Flower's own, which take a second."""

from abc import abstractmethod
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NoReturn, TypeGuard

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmd.flower.wire.model_exchange import Exchange

if TYPE_CHECKING:
    from flwr.superlink.grid import HttpGrid


class BareGrid(Grid):
    """Nodes without a SuperLink: whatever of Flower's interface needs one is refused, in the words of `refusal`."""

    refusal: ClassVar[str]

    @property
    def run(self) -> Run:
        """There is none."""
        self._refuse()

    def set_run(self, run: Run) -> None:
        """There is none to set."""
        self._refuse()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Messages are made by their constructor."""
        self._refuse()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused, where a grid is not to be asked anything."""
        self._refuse()

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused likewise."""
        self._refuse()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Refused: it sleeps between looks."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(self.refusal)


class LocalGrid(BareGrid):
    """Nodes that this process or its workers play: always there, and asked and heard by `Nodes` alone.

    They remember nothing from message to message. All that a simulated client does follows from the request, so any
    worker may answer for any node, and one that dies takes nothing with it.
    """

    refusal = "a simulated federation has no run at a SuperLink; its messages are pushed and pulled"
    has_deadline = True  # False: answers come as fast as this process makes them, and it waits for no one

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def get_node_ids(self) -> list[int]:
        """Beginning with 1, as Flower reserves 0."""
        return list(range(1, 1 + self.nodes))

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Come back when there are answers to pull, or after so many seconds, or earlier."""

    @abstractmethod
    def forget(self, message_ids: Collection[str]) -> None:
        """Nobody waits any more for the answers to these messages."""

    @abstractmethod
    def exchange(self, folder: Path) -> Exchange:
        """The way of the server's model to the clients, who can use `folder` among themselves."""


def is_remote(grid: Grid) -> "TypeGuard[HttpGrid]":
    """Whether its nodes are machines of their own, behind a SuperLink."""
    if isinstance(grid, LocalGrid):
        return False
    from flwr.superlink.grid import HttpGrid

    return isinstance(grid, HttpGrid)
