"""Which grids there are, told apart without importing Flower's own, which take a second."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn, TypeGuard

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

if TYPE_CHECKING:
    from flwr.superlink.grid import HttpGrid


class LocalGrid(Grid):
    """Nodes that this process or its workers play: always there, and asked and heard by `Nodes` alone."""

    has_deadline = True  # False: answers come as fast as this process makes them, and it waits for no one

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes

    def get_node_ids(self) -> list[int]:
        """Beginning with 1, as Flower reserves 0."""
        return list(range(1, 1 + self.nodes))

    @abstractmethod
    def wait(self, seconds: float) -> None:
        """Come back when there are answers to pull, or after so many seconds."""

    def place(self, node: int) -> dict[str, int]:
        """What `node` is told that it is, as Flower's simulation tells it."""
        return {"partition-id": node - 1, "num-partitions": self.nodes}

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

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Messages are pushed and pulled."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError("a federation in this process has no run at a SuperLink")


def is_remote(grid: Grid) -> "TypeGuard[HttpGrid]":
    """Whether its nodes are machines of their own, behind a SuperLink."""
    if isinstance(grid, LocalGrid):
        return False
    from flwr.superlink.grid import HttpGrid

    return isinstance(grid, HttpGrid)
