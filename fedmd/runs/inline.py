"""A federation in this process: a Flower grid that calls the very same client app at once. No Ray, no subprocess.

Nothing but the engine differs: the same messages, the same order, the same numbers, bit for bit.
"""

import itertools
from collections import deque
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
        reply = answer(self._app, message, self.place(message.metadata.dst_node_id))
        torch.set_num_threads(threads)  # the server's; a client sets its own
        return [reply]

    def wait(self, seconds: float) -> None:
        """The next answer is made when it is pulled."""

    def _keep(self, message: Message) -> str:
        number = f"inline-{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = number  # a grid's to set; Flower's own do it the same way
        self._waiting.append(message)
        return number


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
