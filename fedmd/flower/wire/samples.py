"""Samples on their way up, in mode=stream, and how the server checks them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedmd.flower.wire.arrays import Values, read_array
from fedmd.flower.wire.header import (
    HEADER,
    PROTOCOL,
    check_header,
    content_hash,
    note_unasked,
)
from fedmd.flower.wire.reasons import shown
from fedmd.types import Rejection, StreamBatch

STREAM = "train.stream"


@dataclass(frozen=True)
class ExpectedBatch:
    """What a valid batch looks like: sample shape (C, H, W), number of classes, most samples a client may send."""

    shape: tuple[int, int, int]
    classes: int
    max_samples: int


def batches_reply(round: int, batches: Sequence[StreamBatch]) -> RecordDict:
    """A node's answer to a request for samples: batches of `round` and perhaps of the rounds after it."""
    clients = list(dict.fromkeys(batch.client for batch in batches))
    records = RecordDict({HEADER: ConfigRecord({"protocol": PROTOCOL, "round": round, "clients": clients})})
    for batch in batches:
        key = _batch_key(batch.client, batch.round - round)
        records[key] = ArrayRecord({"images": Array(batch.images), "labels": Array(batch.labels)})
    return records


def read_batches(
    message: Message, first: int, rounds: int, clients: Sequence[int], expected: ExpectedBatch
) -> list[tuple[list[StreamBatch], list[Rejection]]]:
    """Everything valid in a node's reply, round by round from `first` on, and the reason for all that is not.

    Never raises. One client's bad batch does not cost the other clients of its node theirs.
    """
    try:
        check_header(message, first)
    except ValueError as error:
        return [([], [Rejection(client, str(error)) for client in clients])] * rounds
    read = []
    for offset in range(rounds):
        batches: list[StreamBatch] = []
        rejections: list[Rejection] = []
        for client in clients:
            content = content_hash(message, _batch_key(client, offset))
            try:
                record = message.content.array_records.get(_batch_key(client, offset))
                batches.append(StreamBatch(client, first + offset, *_read(record, expected), content))
            except ValueError as error:
                rejections.append(Rejection(client, str(error), content))
        read.append((batches, rejections))
    asked = {_batch_key(client, offset) for client in clients for offset in range(rounds)}
    note_unasked(message, asked, clients[0], read[0][1])
    return read


def _batch_key(client: int, offset: int) -> str:
    return f"batch.{client}" if offset == 0 else f"batch.{client}.{offset}"


def _read(record: ArrayRecord | None, expected: ExpectedBatch) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels as they were really sent. Bytes cannot be out of range, infinite or NaN."""
    if record is None or set(record) != {"images", "labels"}:
        raise ValueError("there is no batch with images and labels")
    images: Values = read_array("images", record["images"])
    labels: Values = read_array("labels", record["labels"])
    if images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, not {str(images.dtype)[:40]}")
    if labels.dtype != np.int64:
        raise ValueError(f"labels must be int64, not {str(labels.dtype)[:40]}")
    if images.ndim != 4 or images.shape[1:] != expected.shape:
        wanted = ", ".join(map(str, expected.shape))
        raise ValueError(f"images must have shape [n, {wanted}], not {shown(list(images.shape))}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape [{len(images)}], not {shown(list(labels.shape))}")
    if not 1 <= len(labels) <= expected.max_samples:
        raise ValueError(f"a batch must have 1 to {expected.max_samples} samples, not {len(labels)}")
    if labels.min() < 0 or labels.max() >= expected.classes:
        raise ValueError(f"labels must be between 0 and {expected.classes - 1}")
    return cast(NDArray[np.uint8], images), cast(NDArray[np.int64], labels)
