"""Small messages: what a server asks in round 5, and what an honest node of clients 0 and 1 answers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Error, Message, RecordDict

from fedmd.flower.wire.header import Request, request_content
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, batches_reply, read_batches
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.types import Rejection, StreamBatch
from tests.inline import over_the_wire

ROUND = 5


def asked(run: str, round: int, clients: Sequence[int], **more: Any) -> RecordDict:
    """The content of a request."""
    return request_content(Request(run, round, tuple(clients), **more))


def batch(client: int, n: int = 3) -> StreamBatch:
    """`n` images of 4x4 pixels for client `client`."""
    rng = np.random.default_rng(client)
    images = rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    return StreamBatch(client, ROUND, images, rng.integers(0, 10, n))


def reply(content: RecordDict | Error, kind: str = STREAM) -> Message:
    """What the server receives when a node answers a request for clients 0 and 1 with `content`."""
    return over_the_wire(Message(content, reply_to=Message(asked("{}", ROUND, [0, 1]), 1, kind)))


def honest(*clients: int) -> RecordDict:
    """The proper answer for `clients`."""
    return batches_reply(ROUND, [batch(client) for client in clients])


def read_round(
    message: Message, round: int, clients: Sequence[int], expected: ExpectedBatch
) -> tuple[list[StreamBatch], list[Rejection]]:
    """`read_batches` of a reply that answers for one round."""
    return read_batches(message, round, 1, clients, expected)[0]


def sent_updates(message: Message) -> list[ClientUpdate]:
    """The updates in a reply, as they are there."""
    header: Any = message.content.config_records["fedmd"]
    columns = zip(header["clients"], header["examples"], header["seconds"], strict=True)
    return [ClientUpdate(c, message.content.array_records[f"update.{c}"], e, s) for c, e, s in columns]
