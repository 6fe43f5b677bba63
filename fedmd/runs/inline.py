"""A federation in this process: a Flower grid that calls the very same client app at once. No Ray, no subprocess.

Nothing but the engine differs: the same messages, the same order, the same numbers, bit for bit.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from fedmd.flower.server.grids import LocalGrid

_RUN = 1


class InlineGrid(LocalGrid):
    """`nodes` nodes of `app`. A client that raises is its own rejection, in the words that a simulation on Ray has."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        super().__init__(nodes)
        self._app = app
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each message answered."""
        threads = torch.get_num_threads()
        numbers = []
        for message in messages:
            number = f"inline-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number  # a grid's to set; Flower's own do it the same way
            self._replies[number] = answer(self._app, message, self.place(message.metadata.dst_node_id))
            numbers.append(number)
        torch.set_num_threads(threads)  # the server's; a client sets its own
        return numbers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers to these."""
        return [self._replies.pop(number) for number in message_ids if number in self._replies]

    def wait(self, seconds: float) -> None:
        """Answers are there at once, or never."""


def answer(app: ClientApp, message: Message, place: Mapping[str, int]) -> Message:
    """What the node at `place` answers: an error in Flower's words where the app raises."""
    context = Context(_RUN, message.metadata.dst_node_id, {**place}, RecordDict(), {})
    try:
        return app(message, context)
    except Exception as error:  # whatever a client app may raise
        reason = f"{ClientAppException}:<'{ClientAppException(str(error))}'>"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


@contextmanager
def server_identity() -> Iterator[None]:
    """What Flower sets when it starts a ServerApp; messages cannot be made without."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _RUN
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before
