"""What a coverage-guided fuzzer feeds to the wire: bytes in, and nothing but a value or one printable reason out.

    pip install fedmd[fuzz]        (atheris has wheels for Linux; Python 3.11 to 3.13)
    python -m tests.fuzz.wire tests/fuzz/corpus -max_total_time=3600 -max_len=4096

The first byte says which target: see TARGETS. `test_corpus.py` replays what lies in corpus/ without atheris.
"""

import inspect
import json
import sys
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage

from fedmd.flower.client.allowed import allowed
from fedmd.flower.wire.arrays import read_array
from fedmd.flower.wire.extent import Extent, measure
from fedmd.flower.wire.header import Request, read_info, read_request
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, batches_reply, read_batches
from fedmd.flower.wire.updates import ClientUpdate, ExpectedUpdate, read_updates, updates_reply
from fedmd.runs.inline import server_identity
from fedmd.types import Rejection, StreamBatch

CLIENTS, ROUND, MOST = (0, 1), 5, 2**16
BATCH = ExpectedBatch((1, 4, 4), 10, 8)
UPDATE = ExpectedUpdate({"w": ((2, 3), np.dtype(np.float32)), "b": ((3,), np.dtype(np.float32))}, 100)


def is_a_reason(text: str) -> None:
    """One short printable line."""
    assert text.isprintable() and 0 < len(text) < 1500, repr(text[:2000])


def array(data: bytes) -> None:
    """The bytes of an array, as its sender describes it: 'f' or 'i', its number of values, then a .npy file."""
    kind, length = ("float32", "int64")[data[:1] == b"i"], int.from_bytes(data[1:3], "little")
    try:
        values = read_array("x", Array(kind, (length,), "numpy.ndarray", data[3:]))
    except ValueError as error:
        is_a_reason(str(error))
        return
    assert values.nbytes <= len(data) and values.shape == (length,)


def reply(data: bytes) -> Message | None:
    """A reply from the bytes of a protocol buffer; None where Flower itself refuses them."""
    try:
        message = message_from_proto(ProtoMessage.FromString(data))
    except Exception:  # Flower's, in a thread of its own: whatever it raises becomes the node's error
        return None
    if not message.has_error() and not message.has_content():
        return None
    return message if measure(message, Extent(len(CLIENTS), 2, MOST, "64 KiB")).excess is None else None


def refused(rejections: list[Rejection]) -> None:
    """Each for a reason, and once."""
    for rejection in rejections:
        is_a_reason(rejection.reason)
        assert rejection.client in CLIENTS
    assert len({rejection.client for rejection in rejections}) == len(rejections)


def samples(data: bytes) -> None:
    """A reply with batches."""
    if (message := reply(data)) is None:
        return
    ((batches, rejections),) = read_batches(message, ROUND, 1, CLIENTS, BATCH)
    refused(rejections)
    for batch in batches:
        assert batch.images.dtype == np.uint8 and batch.images.shape[1:] == BATCH.shape
        assert 1 <= len(batch) <= BATCH.max_samples and 0 <= batch.labels.min() <= batch.labels.max() < BATCH.classes
    assert {batch.client for batch in batches} | {item.client for item in rejections} == set(CLIENTS)


def updates(data: bytes) -> None:
    """A reply with updates."""
    if (message := reply(data)) is None:
        return
    found, rejections = read_updates(message, ROUND, CLIENTS, UPDATE)
    refused(rejections)
    for update in found:
        assert 1 <= update.examples <= UPDATE.max_examples and np.isfinite(update.seconds)
        for name, tensor in update.tensors().items():
            assert tuple(tensor.shape) == UPDATE.tensors[name][0] and bool(tensor.isfinite().all())


def info(data: bytes) -> None:
    """What a node says of itself."""
    if (message := reply(data)) is None:
        return
    try:
        clients, _ = read_info(message, 5)
        assert len(set(clients)) == len(clients) and all(0 <= client < 5 for client in clients)
    except ValueError as error:
        is_a_reason(str(error))


def configuration(data: bytes) -> None:
    """A configuration that a server sent to a node."""
    try:
        request, config = allowed(
            Request(data.decode(errors="replace"), ROUND, CLIENTS, exchange="/x", model_file="/y")
        )
        assert request.exchange == request.model_file == "" and config.runtime.cache_dir is None
        assert "/" not in request.run
    except ValueError as error:
        is_a_reason(str(error))


def request(data: bytes) -> None:
    """A whole request, as a node gets it."""
    if (message := reply(data)) is None:
        return
    try:
        allowed(read_request(message))
    except (ValueError, KeyError) as error:
        is_a_reason(str(error))


TARGETS: dict[bytes, Callable[[bytes], None]] = {
    b"a": array,
    b"s": samples,
    b"u": updates,
    b"i": info,
    b"c": configuration,
    b"r": request,
}


WATCHED = ("fedmd.flower.wire", "fedmd.flower.client.allowed", "flwr.common.serde", "numpy.lib._format_impl")
"""Whose branches the fuzzer counts as coverage, by module."""


def one_input(data: bytes) -> None:
    """What the fuzzer calls. Raises for a defect."""
    if (target := TARGETS.get(data[:1])) is not None:
        target(data[1:])


def seeds() -> dict[str, bytes]:
    """Honest inputs to begin with, by name."""
    asked = Message(RecordDict(), 1, STREAM)
    batches = [StreamBatch(c, ROUND, np.full((2, 1, 4, 4), c, np.uint8), np.array([c, 9])) for c in CLIENTS]
    record = ArrayRecord({"w": Array(np.ones((2, 3), np.float32)), "b": Array(np.zeros(3, np.float32))})
    trained = [ClientUpdate(client, record, 10, 0.5) for client in CLIENTS]
    settings = {
        "seed": 0, "data": {"name": "digits", "splits": {"burn_in": 9, "trusted": 9, "attacker": 9, "test": 9}},
        "model": {"name": "cnn", "width": 2}, "federation": {"clients": 2}, "attack": {"name": "none", "fraction": 0},
        "training": {"burn_in": {"epochs": 1, "batch_size": 2, "lr": 1, "momentum": 0, "weight_decay": 0},
                     "online": {"lr": 1, "momentum": 0}},
        "stream": {"source": "fresh", "batch_size": 2, "clean_rounds": 1, "accumulative_rounds": 0,
                   "trigger_rounds": 0, "recovery_rounds": 0},
    }  # fmt: skip

    def sent(content: RecordDict) -> bytes:
        return message_to_proto(Message(content, reply_to=asked)).SerializeToString()

    from fedmd.flower.wire.header import info_reply, request_content

    text = json.dumps(settings)
    return {
        "array": b"a" + b"f" + (3).to_bytes(2, "little") + Array(np.ones(3, np.float32)).data,
        "array-int": b"a" + b"i" + (2).to_bytes(2, "little") + Array(np.ones(2, np.int64)).data,
        "samples": b"s" + sent(batches_reply(ROUND, batches)),
        "updates": b"u" + sent(updates_reply(ROUND, trained)),
        "info": b"i" + sent(info_reply((1, 3), wants_model=True)),
        "configuration": b"c" + text.encode(),
        "request": b"r" + sent(request_content(Request(text, ROUND, CLIENTS, session="a1"))),
    }


def main() -> None:
    """Fuzz until told otherwise; the arguments are libFuzzer's."""
    import atheris

    for module in [each for name, each in sys.modules.items() if name.startswith(WATCHED)]:
        for thing in vars(module).values():
            for function in (thing, *(vars(thing).values() if inspect.isclass(thing) else ())):
                if inspect.isfunction(function) and function.__module__ == module.__name__:
                    atheris.instrument_func(function)
    atheris.Setup(sys.argv, one_input)
    with server_identity():
        atheris.Fuzz()


if __name__ == "__main__":
    main()
