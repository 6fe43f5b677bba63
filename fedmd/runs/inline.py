"""A federation in this process: a Flower grid that calls the very same client app at once. No Ray, no subprocess.

Nothing but the engine differs: the same messages, the same order, the same numbers, bit for bit.
"""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import torch
from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import InMemoryGrid

_FIRST_NODE = 1  # Flower reserves 0
_RUN = 1


class InlineGrid(InMemoryGrid):
    """`nodes` nodes of `app`. A client that raises is its own rejection, in the words that a simulation on Ray has."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        self._app = app
        self._nodes = nodes
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        """All nodes are always there."""
        return list(range(_FIRST_NODE, _FIRST_NODE + self._nodes))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each message answered."""
        return [self._answer(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers to these."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def _answer(self, message: Message) -> str:
        number = f"inline-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = number  # a grid's to set; Flower's own do it the same way
        node = message.metadata.dst_node_id
        place: UserConfig = {"partition-id": node - _FIRST_NODE, "num-partitions": self._nodes}
        threads = torch.get_num_threads()
        try:
            self._replies[number] = self._app(message, Context(_RUN, node, place, RecordDict(), {}))
        except Exception as error:  # whatever a client app may raise
            reason = f"{ClientAppException}:<'{ClientAppException(str(error))}'>"
            self._replies[number] = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        finally:
            torch.set_num_threads(threads)  # the server's; a client sets its own
        return number

    @property
    def run(self) -> Run:
        """There is none."""
        self._refuse()

    def set_run(self, run: Run) -> None:
        """There is none to set."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError("an inline federation has no run at a SuperLink")


@contextmanager
def server_identity() -> Iterator[None]:
    """What Flower sets when it starts a ServerApp; messages cannot be made without."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _RUN
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before
