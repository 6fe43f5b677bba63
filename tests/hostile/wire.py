"""Nodes whose answers are bytes until they are pulled, and a second opinion on replies."""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.superlink.grid import HttpGrid

from fedmd.flower.wire.header import INFO, info_reply
from fedmd.flower.wire.samples import STREAM
from fedmd.flower.wire.updates import ClientUpdate, updates_reply
from fedmd.types import StreamBatch
from tests.flower.wire.examples import ROUND, asked
from tests.inline import Inline, decoded

Answers = Callable[[int, Message], list[bytes]]


class WireGrid(Inline, HttpGrid):
    """As Flower's grid over HTTP: what a node sent is decoded while it is pulled, and delivered once.

    `answers(node, request)` are what a node sends in a round; `nodes[node]` the clients it says it answers for.
    """

    def __init__(self, nodes: dict[int, list[int]], answers: Answers) -> None:
        def node(number: int, clients: list[int], request: Message) -> Sequence[Message | bytes]:
            if request.metadata.message_type == INFO:
                return [Message(info_reply(clients, wants_model=False), reply_to=request)]
            return answers(number, request)

        super().__init__({number: partial(node, number, clients) for number, clients in nodes.items()})

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The answers to these requests."""
        wanted = set(message_ids)
        pulled = [data for number, data in self.mail if number in wanted]
        self.mail = [(number, data) for number, data in self.mail if number not in wanted]
        return [decoded(data) for data in pulled]


# -- small replies to a request of round 5 for clients 0 and 1 --------------------------------------------------------


def batch(client: int, round: int = ROUND) -> StreamBatch:
    return StreamBatch(client, round, np.full((4, 1, 8, 8), client, np.uint8), np.arange(4))


def request(content: RecordDict | None = None, kind: str = STREAM) -> Message:
    return Message(content or asked("{}", ROUND, [0, 1]), 1, kind)


def answer(content: RecordDict | Error) -> Message:
    return Message(content, reply_to=request())


def update(**arrays: Any) -> RecordDict:
    return updates_reply(ROUND, [ClientUpdate(0, ArrayRecord({n: Array(a) for n, a in arrays.items()}), 10, 0.1)])


# -- the second opinion: from the protocol, on the protocol buffers, without a line of fedmd ---------------------------


def the_reply(mail: list[bytes], request: Message) -> ProtoMessage | None:
    """Which of a node's answers counts: the first to the request by the one who was asked, if all can be decoded."""
    try:
        for data in mail:
            decoded(data)
    except Exception:
        return None
    for message in map(ProtoMessage.FromString, mail):
        if message.metadata.reply_to_message_id == request.metadata.message_id:
            if message.HasField("error"):
                return None
            if message.metadata.src_node_id == request.metadata.dst_node_id:
                return message
    return None


def header(message: ProtoMessage | None, round: int) -> dict[str, Any] | None:
    """The header's values by name, if the reply is one of `round`."""
    if message is None or not message.HasField("content"):
        return None
    record = _records(message).get("fedmd")
    if record is None or record.WhichOneof("value") != "config_record":
        return None
    values = {item.key: item.value for item in record.config_record.items}
    numbers = {name: _integer(values.get(name)) for name in ("protocol", "round")}
    return values if numbers == {"protocol": 1, "round": round} else None


def arrays(message: ProtoMessage, key: str) -> dict[str, np.ndarray]:
    """The arrays of the record `key` that are what they are declared to be; empty if any is not."""
    record, read = _records(message).get(key), {}
    if record is None or record.WhichOneof("value") != "array_record":
        return {}
    for name, array in {item.key: item.value for item in record.array_record.items}.items():
        file = io.BytesIO(array.data)
        try:
            values = np.load(file, allow_pickle=False)
        except Exception:
            return {}
        declared = (array.stype, array.dtype, tuple(array.shape))
        if not isinstance(values, np.ndarray) or declared != ("numpy.ndarray", str(values.dtype), values.shape):
            return {}
        if file.read() or array.data[6] == 3:  # bytes behind the data; a version for field names in Unicode
            return {}
        read[name] = values
    return read


def refusable(data: bytes, valid: bytes, round: int, client: int) -> bool:
    """Whether nothing may be learned from `data`, which a valid reply of `client` to the request of `round` became."""
    message, before = ProtoMessage.FromString(data), ProtoMessage.FromString(valid)
    values = header(message, round)
    if values is None:
        return True
    if like := arrays(before, f"update.{client}"):
        most = _records(before)["fedmd"].config_record
        examples = next(item.value.sint_list.vals[0] for item in most.items if item.key == "examples")
        return not valid_update(message, values, client, like, examples)
    labels = arrays(before, f"batch.{client}")["labels"]
    return not valid_batch(message, client, 10, len(labels))


def valid_batch(message: ProtoMessage, client: int, classes: int, most: int) -> dict[str, np.ndarray]:
    """`images` and `labels` of the client, if they may be learned from."""
    read = arrays(message, f"batch.{client}")
    if set(read) != {"images", "labels"}:
        return {}
    images, labels = read["images"], read["labels"]
    fits = str(images.dtype) == "uint8" and str(labels.dtype) == "int64" and 1 <= labels.size <= most
    fits = fits and images.shape == (labels.size, 1, 8, 8) and labels.ndim == 1
    return read if fits and all(0 <= label < classes for label in labels.tolist()) else {}


def valid_update(message: ProtoMessage, values: dict[str, Any], client: int, like: dict[str, Any], most: int) -> bool:
    """Whether the client's update may be averaged; `like` are the model's arrays."""
    columns = [values.get(name) for name in ("clients", "examples", "seconds")]
    lists = [getattr(v, v.WhichOneof("value")).vals if v is not None and _is_list(v) else None for v in columns]
    if any(column is None for column in lists) or len({len(column) for column in lists}) != 1:
        return False
    if columns[0].WhichOneof("value") not in ("sint_list", "uint_list") and len(lists[0]):
        return False
    if columns[1].WhichOneof("value") not in ("sint_list", "uint_list"):
        return False
    if len(set(lists[0])) != len(lists[0]) or client not in lists[0]:
        return False
    if not 1 <= lists[1][list(lists[0]).index(client)] <= most:
        return False
    read = arrays(message, f"update.{client}")
    return set(read) == set(like) and all(
        str(read[name].dtype) == "float32"
        and read[name].shape == own.shape
        and all(map(math.isfinite, read[name].ravel().tolist()))
        for name, own in like.items()
    )


def _records(message: ProtoMessage) -> dict[str, Any]:
    return {item.key: item for item in message.content.items}


def _integer(value: Any) -> int | None:
    which = None if value is None else value.WhichOneof("value")
    return getattr(value, which) if which in ("sint64", "uint64") else None


def _is_list(value: Any) -> bool:
    return str(value.WhichOneof("value")).endswith("_list")
