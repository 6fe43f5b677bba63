"""Nodes that answer at once in this process, over Flower's own serialisation: the tests' one grid."""

import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.superlink.grid import InMemoryGrid

FIRST = 100  # the id of the first node of an app
Node = Callable[[Message], Iterable[Message | bytes]]
"""What a node sends back to a request: nothing, an answer, or as many as it likes."""


class Inline(InMemoryGrid):
    """Answers are there in random order, half of them at a time, whoever is waiting for them; each comes once.

    `requests` remembers what was asked; `keys` are the public keys of nodes that have any.
    """

    def __init__(self, nodes: Mapping[int, Node]) -> None:
        self.nodes = dict(nodes)
        self.keys: dict[int, bytes] = {}
        self.requests: list[Message] = []
        self.mail: list[tuple[str, bytes]] = []
        self._numbers, self._random = itertools.count(1), random.Random(0)

    def get_node_ids(self) -> list[int]:
        """Those that have not left."""
        return list(self.nodes)

    def get_nodes(self) -> Any:
        """Their ids and keys."""
        return [SimpleNamespace(node_id=node, public_key=self.keys.get(node, b"")) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Ask, and let each node answer. There is no id for a message to a node that has left."""
        ids = []
        for message in messages:
            if (node := self.nodes.get(message.metadata.dst_node_id)) is None:
                continue
            number = f"request-{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = number  # a grid's to set
            self.requests.append(over_the_wire(message))
            answers = node(self.requests[-1])
            self.mail += [(number, each if isinstance(each, bytes) else encoded(each)) for each in answers]
            ids.append(number)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Half of what is there: also replies to messages that nobody waits for."""
        self._random.shuffle(self.mail)
        half = -(-len(self.mail) // 2)
        pulled, self.mail = self.mail[:half], self.mail[half:]
        return [decoded(data) for _, data in pulled]

    def asked(self, kind: str) -> dict[int, Message]:
        """The last request of a kind to each node."""
        return {m.metadata.dst_node_id: m for m in self.requests if m.metadata.message_type == kind}


def app_node(app: ClientApp, node: int, config: dict[str, Any], run: int = 7) -> Node:
    """Node `node` with `app`, started with `config`."""
    return lambda request: [app(request, Context(run, node, config, RecordDict(), {}))]


def simulated_nodes(app: ClientApp, count: int) -> dict[int, Node]:
    """So many nodes that share all clients out, as in a simulation."""
    return {
        FIRST + place: app_node(app, FIRST + place, {"partition-id": place, "num-partitions": count})
        for place in range(count)
    }


def over_the_wire(message: Message) -> Message:
    """Through protocol buffers and bytes, as between machines."""
    return decoded(encoded(message))


def encoded(message: Message) -> bytes:
    """What goes over the wire."""
    return message_to_proto(message).SerializeToString()


def decoded(data: bytes) -> Message:
    """What Flower makes of it; raises all kinds of exceptions."""
    return message_from_proto(ProtoMessage.FromString(data))


class Clock:
    """In place of the module `time`: deadlines pass by polling, however slow the machine is."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """No time at all."""
        self.now += seconds
