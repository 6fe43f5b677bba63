"""Flower messages without Flower's processes: an identity to send them under, and the way over the wire."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity

from fedmd.flower.messages import STREAM, stream_reply, stream_request
from fedmd.types import StreamBatch

ROUND = 5


@pytest.fixture(autouse=True, scope="session")
def identity() -> Iterator[None]:
    """Flower sets this when it starts a ServerApp."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


def over_the_wire(message: Message) -> Message:
    """Through protocol buffers and bytes, as between machines."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


def batch(client: int, n: int = 3) -> StreamBatch:
    """`n` images of 4x4 pixels for client `client`."""
    rng = np.random.default_rng(client)
    images = rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    return StreamBatch(client, ROUND, images, rng.integers(0, 10, n))


def reply(content: RecordDict | Error) -> Message:
    """What the server receives when a node answers a request for clients 0 and 1 with `content`."""
    request = Message(stream_request("{}", ROUND, [0, 1], ""), 1, STREAM)
    return over_the_wire(Message(content, reply_to=request))


def honest(*clients: int) -> RecordDict:
    """The proper answer for `clients`."""
    return stream_reply(ROUND, [batch(client) for client in clients])


@pytest.fixture(scope="session")
def wire() -> SimpleNamespace:
    """The helpers above, for the test modules of this folder."""
    return SimpleNamespace(over_the_wire=over_the_wire, batch=batch, reply=reply, honest=honest)
