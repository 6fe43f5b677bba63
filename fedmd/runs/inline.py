"""A federation in this process: a Flower grid that calls the very same client app at once. No Ray, no subprocess.

Nothing but the engine differs: the same messages, the same order, the same numbers, bit for bit.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.client_app import ClientAppException
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from fedmd.flower.server.grids import LocalGrid
from fedmd.flower.wire.model_exchange import Exchange, InProcess

_RUN = 1


class InlineGrid(LocalGrid):
    """`nodes` nodes of `app`, which have all the time they need.

    A client that raises is its own rejection, in the words that a simulation on Ray has.
    """

    has_deadline = False

    def __init__(self, app: ClientApp, nodes: int) -> None:
        super().__init__(nodes)
        self._app = app
        self._numbers = itertools.count(1)
        self._waiting: deque[Message] = deque()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Keep each message until answers are pulled."""
        return [self._keep(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answer to the next message, so that it can be read before others take up memory."""
        threads = torch.get_num_threads()
        message = self._waiting.popleft()
        reply = answer(self._app, message, self.nodes)
        torch.set_num_threads(threads)  # the server's; a client sets its own
        return [reply]

    def wait(self, seconds: float) -> None:
        """The next answer is made when it is pulled."""

    def forget(self, message_ids: Collection[str]) -> None:
        """They are not asked."""
        self._waiting = deque(message for message in self._waiting if message.metadata.message_id not in message_ids)

    def exchange(self, folder: Path) -> Exchange:
        """A copy in this process."""
        return InProcess(folder)

    def _keep(self, message: Message) -> str:
        self._waiting.append(message)
        return number(message, next(self._numbers))


def number(message: Message, count: int) -> str:
    """Give `message` an id, as is a grid's business; Flower's own do it the same way."""
    message.metadata.__dict__["_message_id"] = f"message-{count}"
    return message.metadata.message_id


def answer(app: ClientApp, message: Message, nodes: int) -> Message:
    """What the asked one of so many nodes answers: an error where the app raises, in Flower's words, or answers not."""
    node = message.metadata.dst_node_id
    place = {"partition-id": node - 1, "num-partitions": nodes}  # as Flower's simulation tells it
    try:
        reply: object = app(message, Context(_RUN, node, {**place}, RecordDict(), {}))
    except Exception as error:  # whatever a client app may raise
        reason = f"{ClientAppException}:<'{ClientAppException(str(error))}'>"
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
    if not isinstance(reply, Message):
        return unusable(message, f"its client app returned a {type(reply).__name__}, not a message")
    if (reply.metadata.reply_to_message_id, reply.metadata.src_node_id) != (message.metadata.message_id, node):
        return unusable(message, "its client app answered what it was not asked")
    return reply


def unusable(message: Message, reason: str) -> Message:
    """The answer to `message` where there is none that could be used."""
    return Message(Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, reason), reply_to=message)


@contextmanager
def server_identity() -> Iterator[None]:
    """What Flower sets when it starts a ServerApp; messages cannot be made without."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = _RUN, _RUN, _RUN
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before
