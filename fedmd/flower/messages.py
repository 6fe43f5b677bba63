"""What travels between server and clients: the only place that knows record keys, and where nothing is believed.

A request names the round and the clients the node answers for; the reply has one batch for each of them:

    query.info    ->  fedmd: {protocol, run}
                  <-  fedmd: {clients: [int], wants_model: bool}
    train.stream  ->  fedmd: {protocol, run, round, clients: [int], exchange, model_file}, model: arrays (deployment)
                  <-  fedmd: {protocol, round, clients: [int]}, batch.<client>: {images: uint8, labels: int64}

`run` is the whole configuration as JSON. Truth about poison is no part of any message.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedmd.types import Rejection, StreamBatch

PROTOCOL = 1
INFO, STREAM = "query.info", "train.stream"
_HEADER, _MODEL = "fedmd", "model"


@dataclass(frozen=True)
class Request:
    """A server's request as a client reads it. `model` is None for a node that did not subscribe to it."""

    run: str
    round: int
    clients: tuple[int, ...]
    exchange: str
    model_file: str
    model: ArrayRecord | None


@dataclass(frozen=True)
class Expected:
    """What a valid batch looks like: sample shape (C, H, W), number of classes, most samples a client may send."""

    shape: tuple[int, int, int]
    classes: int
    max_samples: int


def info_request(run: str, exchange: str = "") -> RecordDict:
    """Ask a node which clients it answers for and whether it wants the model."""
    return RecordDict({_HEADER: ConfigRecord({"protocol": PROTOCOL, "run": run, "exchange": exchange})})


def info_reply(clients: Sequence[int], *, wants_model: bool) -> RecordDict:
    """A node's answer to `info_request`."""
    return RecordDict({_HEADER: ConfigRecord({"clients": list(clients), "wants_model": wants_model})})


def read_info(message: Message, clients: int) -> tuple[tuple[int, ...], bool]:
    """The clients a node claims and its wish for the model. Raises ValueError with a reason."""
    header = _header(message)
    claimed: object = header.get("clients")
    wants_model = header.get("wants_model")
    if not isinstance(claimed, list) or not all(type(client) is int and 0 <= client < clients for client in claimed):
        raise ValueError(f"clients must be a list of ids below {clients}")
    if len(set(claimed)) != len(claimed):
        raise ValueError("a client is claimed twice")
    if not isinstance(wants_model, bool):
        raise ValueError("wants_model must be a boolean")
    return tuple(cast(list[int], claimed)), wants_model


def stream_request(
    run: str, round: int, clients: Sequence[int], exchange: str, model_file: str = "", model: ArrayRecord | None = None
) -> RecordDict:
    """Ask a node for the batches of `clients`; the model by file name or in the message, for subscribers only."""
    header = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "run": run,
            "round": round,
            "clients": list(clients),
            "exchange": exchange,
            "model_file": model_file,
        }
    )
    return RecordDict({_HEADER: header} if model is None else {_HEADER: header, _MODEL: model})


def read_request(message: Message) -> Request:
    """A client's view of either request. Raises ValueError when the protocol differs."""
    header = _header(message)
    if header.get("protocol") != PROTOCOL:
        raise ValueError(f"protocol {header.get('protocol')!r} is not {PROTOCOL}: server and client differ in version")
    return Request(
        run=str(header["run"]),
        round=cast(int, header.get("round", 0)),
        clients=tuple(cast(list[int], header.get("clients", []))),
        exchange=str(header.get("exchange", "")),
        model_file=str(header.get("model_file", "")),
        model=message.content.array_records.get(_MODEL),
    )


def stream_reply(round: int, batches: Sequence[StreamBatch]) -> RecordDict:
    """A node's answer to `stream_request`."""
    header = ConfigRecord({"protocol": PROTOCOL, "round": round, "clients": [batch.client for batch in batches]})
    records = RecordDict({_HEADER: header})
    for batch in batches:
        records[_batch_key(batch.client)] = ArrayRecord({"images": Array(batch.images), "labels": Array(batch.labels)})
    return records


def read_own_batches(message: Message) -> list[StreamBatch]:
    """The batches of a reply this process has just made itself (the attack mod's view; not validated)."""
    header = _header(message)
    return [
        StreamBatch(client, cast(int, header["round"]), *_arrays(message, client))
        for client in cast(list[int], header["clients"])
    ]


def read_batches(
    message: Message, round: int, clients: Sequence[int], expected: Expected
) -> tuple[list[StreamBatch], list[Rejection]]:
    """Everything valid in a node's reply, and the reason for everything that is not. Never raises.

    One client's bad batch does not cost the other clients of its node theirs.
    """
    try:
        if message.has_error():
            raise ValueError(f"the node answered with error {message.error.code}: {_last_line(message.error.reason)}")
        header = _header(message)
        if header.get("protocol") != PROTOCOL:
            raise ValueError(f"protocol must be {PROTOCOL}")
        if type(header.get("round")) is not int or header["round"] != round:
            raise ValueError(f"the answer is for round {header.get('round')!r}, not {round}"[:200])
    except ValueError as error:
        return [], [Rejection(client, str(error)) for client in clients]
    batches: list[StreamBatch] = []
    rejections: list[Rejection] = []
    for client in clients:
        try:
            images, labels = _arrays(message, client)
            _check(images, labels, expected)
            batches.append(StreamBatch(client, round, images, labels, _content(message, client)))
        except ValueError as error:
            rejections.append(Rejection(client, str(error), _content(message, client)))
    asked = {_HEADER, *(_batch_key(client) for client in clients)}
    if unasked := sorted(set(message.content) - asked):
        rejections.append(Rejection(clients[0], f"unexpected records {unasked[:3]} were ignored"[:200]))
    return batches, rejections


def _last_line(reason: str | None) -> str:
    """What a traceback ends with, fit for a terminal; the lines before differ from run to run (pids, addresses)."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return "".join(character for character in lines[-1] if character.isprintable())[-300:] if lines else ""


def _header(message: Message) -> ConfigRecord:
    header = message.content.config_records.get(_HEADER)
    if header is None:
        raise ValueError(f"the config record {_HEADER!r} is missing")
    return header


def _batch_key(client: int) -> str:
    return f"batch.{client}"


def _arrays(message: Message, client: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    record = message.content.array_records.get(_batch_key(client))
    if record is None or set(record) != {"images", "labels"}:
        raise ValueError("there is no batch with images and labels")
    try:
        return record["images"].numpy(), record["labels"].numpy()
    except Exception as error:  # NumPy's reader answers bad bytes with BadZipFile, TokenError, OverflowError, ...
        raise ValueError(f"an array cannot be read: {type(error).__name__}") from error


def _content(message: Message, client: int) -> str | None:
    """SHA-256 of what a client's record holds, as it came: names, declared types and shapes, bytes."""
    record = message.content.array_records.get(_batch_key(client))
    if record is None:
        return None
    digest = hashlib.sha256()
    for name in sorted(record):
        array = record[name]
        digest.update(f"{name!r} {array.dtype!r} {array.shape!r} {array.stype!r} {len(array.data)} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _check(images: NDArray[np.uint8], labels: NDArray[np.int64], expected: Expected) -> None:
    """What was really sent, whatever it was declared as. Bytes cannot be out of range, infinite or NaN."""
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8, not {getattr(images, 'dtype', type(images).__name__)}")
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64:
        raise ValueError(f"labels must be int64, not {getattr(labels, 'dtype', type(labels).__name__)}")
    if images.ndim != 4 or images.shape[1:] != expected.shape:
        raise ValueError(f"images must have shape [n, {', '.join(map(str, expected.shape))}], not {list(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"labels must have shape [{len(images)}], not {list(labels.shape)}")
    if not 1 <= len(labels) <= expected.max_samples:
        raise ValueError(f"a batch must have 1 to {expected.max_samples} samples, not {len(labels)}")
    if labels.min() < 0 or labels.max() >= expected.classes:
        raise ValueError(f"labels must be between 0 and {expected.classes - 1}")
