"""What a hostile reply costs the server, in seconds for a megabyte sent, over twenty shapes of bomb.

    python -m simulations.benchmarks.refusal

Each bomb answers a request for ten clients' updates, or batches. What is timed is all that the server does with it once
Flower has decoded it: measuring, and, where the measure passes it, reading and hashing. A megabyte sent is counted as
Flower sends it: an object that stands under many names travels once. The last line is one JSON object.
"""

import json
import time
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from fedmd.flower.wire.extent import Extent, measure
from fedmd.flower.wire.header import INFO, PROTOCOL
from fedmd.flower.wire.samples import ExpectedBatch, read_batches
from fedmd.flower.wire.updates import ExpectedUpdate, read_updates

CLIENTS = tuple(range(10))
SLOTS = {f"layer.{i}": ((64, 64), np.dtype(np.float32)) for i in range(20)}
ONE = Array(np.zeros((64, 64), np.float32))
MOST = Extent(len(CLIENTS), len(SLOTS), 64 * 2**20, "this benchmark's 64 MiB")


def head(**more: object) -> ConfigRecord:
    """A proper header, and `more`."""
    ids = list(CLIENTS)
    proper = {"protocol": PROTOCOL, "round": 0, "clients": ids, "examples": [1] * 10, "seconds": [0.0] * 10}
    return ConfigRecord({**proper, **more})  # type: ignore[dict-item]


def update(array: Array = ONE, names: list[str] | None = None) -> ArrayRecord:
    """One client's update, every tensor of which is `array`."""
    return ArrayRecord({name: array for name in names or list(SLOTS)})


def reply(record: ArrayRecord, header: ConfigRecord | None = None, **more: object) -> RecordDict:
    """A reply in which every client sends `record`."""
    return RecordDict({"fedmd": header or head(), **{f"update.{c}": record for c in CLIENTS}, **more})  # type: ignore[dict-item]


def declared(dtype: str = "float32", shape: tuple[int, ...] = (64, 64), stype: str = "numpy.ndarray") -> Array:
    """The usual bytes, under a description of its own."""
    return Array(dtype, shape, stype, ONE.data)


def batches(images: Array, labels: Array) -> RecordDict:
    """A reply with the same batch of every client."""
    batch = ArrayRecord({"images": images, "labels": labels})
    return RecordDict({"fedmd": head(), **{f"batch.{client}": batch for client in CLIENTS}})


MANY = [f"layer.{i}" for i in range(100_000)]
BOMBS: dict[str, Callable[[], RecordDict]] = {
    "an honest reply": lambda: reply(update()),
    "a data type of a megabyte": lambda: reply(update(declared(dtype="f" * 10**6))),
    "a shape of a million lengths": lambda: reply(update(declared(shape=(1,) * 10**6))),
    "a shape of huge numbers": lambda: reply(update(declared(shape=(2**62,) * 10**5))),
    "a kind of array of a megabyte": lambda: reply(update(declared(stype="n" * 10**6))),
    "one array under 100,000 names": lambda: reply(update(names=MANY)),
    "one described array under 100,000 names": lambda: reply(update(declared(dtype="f" * 10**5), MANY)),
    "one record under 10,000 names": lambda: reply(update(), **{f"more.{i}": update() for i in range(10_000)}),
    "100,000 empty records": lambda: reply(update(), **{f"more.{i}": ArrayRecord() for i in range(100_000)}),
    "a tensor's name of a megabyte": lambda: reply(update(names=["n" * 10**6])),
    "a record's name of a megabyte": lambda: reply(update(), **{"r" * 10**6: update()}),
    "two million claimed clients": lambda: reply(update(), head(clients=list(range(2 * 10**6)))),
    "two million claimed seconds": lambda: reply(update(), head(seconds=[0.0] * 2 * 10**6)),
    "a million words in the header": lambda: reply(update(), head(words=["word"] * 10**6)),
    "a text of ten megabytes": lambda: reply(update(), head(text="t" * 10**7)),
    "100,000 metrics": lambda: reply(update(), metrics=MetricRecord({f"m{i}": 1.0 for i in range(100_000)})),
    "bytes that are no array": lambda: reply(update(Array("float32", (64, 64), "numpy.ndarray", b"x" * 10**6))),
    "a header that goes on": lambda: reply(
        update(Array("float32", (64, 64), "numpy.ndarray", b"\x93NUMPY\x02\x00\xff\xff\x0f\x00" + b"(" * 10**6))
    ),
    "one batch of 50,000 images, ten times": lambda: batches(
        Array(np.zeros((50_000, 1, 8, 8), np.uint8)), Array(np.zeros(50_000, np.int64))
    ),
    "images with a shape of a million": lambda: batches(
        Array("uint8", (1,) * 10**6, "numpy.ndarray", ONE.data), Array(np.zeros(10, np.int64))
    ),
    "not a number, in every tensor": lambda: reply(update(Array(np.full((64, 64), np.nan, np.float32)))),
}


def seconds(content: RecordDict, *, samples: bool) -> tuple[float, bool]:
    """Of the server, in the best of three tries; and whether the reply was found to be too much to be read."""
    message = Message(content, dst_node_id=1, message_type=INFO)
    best, refused = float("inf"), False
    for _ in range(3):
        started = time.perf_counter()
        refused = measure(message, MOST).excess is not None
        if not refused and samples:
            read_batches(message, 0, 1, CLIENTS, ExpectedBatch((1, 8, 8), 10, 100))
        elif not refused:
            read_updates(message, 0, CLIENTS, ExpectedUpdate(SLOTS, 100))
        best = min(best, time.perf_counter() - started)
    return best, refused


def megabytes(content: RecordDict) -> float:
    """What is sent: every object once."""
    objects = get_all_nested_objects(content)
    return sum(len(each.deflate()) for each in objects.values()) / 1e6


def main() -> None:
    """A row a bomb, and the worst of them."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    rows = {}
    for name, make in BOMBS.items():
        content = make()
        spent, refused = seconds(content, samples="batch.0" in content)
        sent = megabytes(content)
        rows[name] = spent / sent
        print(f"{name:42s} {sent:8.2f} MB {1000 * spent:9.2f} ms {rows[name]:9.4f} s/MB {'refused' * refused}")
    worst = max(rows, key=lambda name: rows[name])
    print(json.dumps({"shapes": len(rows), "worst": worst, "worst_seconds_per_mb": round(rows[worst], 4)}))


if __name__ == "__main__":
    main()
