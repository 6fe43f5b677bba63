"""A grid whose nodes are the client app, called at once in this process: a federation without Ray."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import InMemoryGrid

FIRST = 100  # the id of the first node


class Inline(InMemoryGrid):
    """`nodes` nodes of `app`; everything travels through Flower's serialisation, as between machines."""

    def __init__(self, app: ClientApp, nodes: int) -> None:
        self._app, self._nodes = app, nodes
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> list[int]:
        return [FIRST + place for place in range(self._nodes)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            number = f"request-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number
            place = message.metadata.dst_node_id - FIRST
            config: Any = {"partition-id": place, "num-partitions": self._nodes}
            context = Context(7, message.metadata.dst_node_id, config, RecordDict(), {})
            self._replies[number] = _copied(self._app(_copied(message), context))
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self._replies.pop(number) for number in message_ids if number in self._replies]


def _copied(message: Message) -> Message:
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


@contextmanager
def identity() -> Iterator[None]:
    """What Flower sets when it starts a ServerApp."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before
