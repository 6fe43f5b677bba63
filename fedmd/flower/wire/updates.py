"""Trained models on their way up, in mode=update, and how the server checks them."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedmd.flower.wire.arrays import Slots, Values, read_array, read_tensors, record_of
from fedmd.flower.wire.header import (
    HEADER,
    PROTOCOL,
    check_header,
    content_hash,
    note_unasked,
)
from fedmd.flower.wire.reasons import shown
from fedmd.types import Rejection

if TYPE_CHECKING:  # a deployed client that only sends samples starts in a quarter of the time without it
    from torch import Tensor

UPDATE = "train.update"


@dataclass(frozen=True)
class ClientUpdate:
    """What one client learned: its trained model's tensors, on how many samples, and in how many seconds.

    `content` is the SHA-256 of the tensors as they came, where they came over a wire.
    """

    client: int
    arrays: ArrayRecord
    examples: int
    seconds: float
    content: str | None = None

    def tensors(self) -> "dict[str, Tensor]":
        """The trained model's tensors by name, where they lie: not to be written to."""
        return read_record(self.arrays)


@dataclass(frozen=True)
class ExpectedUpdate:
    """What a valid update looks like: shape and dtype of every tensor, and the most samples a client may claim."""

    tensors: Slots
    max_examples: int


def read_record(record: ArrayRecord) -> "dict[str, Tensor]":
    """The arrays of `record` as CPU tensors, whatever they are. Not to be written to."""
    return as_tensors({name: read_array(name, array) for name, array in record.items()})


def as_tensors(values: Mapping[str, Values]) -> "dict[str, Tensor]":
    """CPU tensors that share the memory of `values`. Not to be written to."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nor does anybody write to it
        return {name: torch.from_numpy(array) for name, array in values.items()}


def updates_reply(round: int, updates: Sequence[ClientUpdate]) -> RecordDict:
    """A node's answer to a request for updates."""
    header = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "round": round,
            "clients": [update.client for update in updates],
            "examples": [update.examples for update in updates],
            "seconds": [update.seconds for update in updates],
        }
    )
    records = RecordDict({HEADER: header})
    for update in updates:
        records[_key(update.client)] = update.arrays
    return records


def read_updates(
    message: Message, round: int, clients: Sequence[int], expected: ExpectedUpdate
) -> tuple[list[ClientUpdate], list[Rejection]]:
    """Everything valid in a node's reply, and the reason for everything that is not. Never raises.

    One client's bad update does not cost the other clients of its node theirs. The tensors come back in the order of
    `expected`, whatever order they were sent in: robust strategies compare flattened models.
    """
    try:
        claims = _claims(check_header(message, round))
    except ValueError as error:
        return [], [Rejection(client, str(error)) for client in clients]
    updates: list[ClientUpdate] = []
    rejections: list[Rejection] = []
    for client in clients:
        content = content_hash(message, _key(client))
        try:
            if client not in claims:
                raise ValueError("the reply does not list it")
            examples, seconds = _plausible(*claims[client], expected)
            record = message.content.array_records.get(_key(client))
            read_tensors(record, expected.tensors)
            arrays = record_of({name: cast(ArrayRecord, record)[name] for name in expected.tensors})
            updates.append(ClientUpdate(client, arrays, examples, seconds, content))
        except ValueError as error:
            rejections.append(Rejection(client, str(error), content))
    note_unasked(message, {_key(client) for client in clients}, clients[0], rejections)
    return updates, rejections


def _key(client: int) -> str:
    return f"update.{client}"


def _claims(header: ConfigRecord) -> dict[int, tuple[object, object]]:
    """(examples, seconds) by client, as claimed."""
    columns = [header.get(name) for name in ("clients", "examples", "seconds")]
    if not all(isinstance(column, list) for column in columns):
        raise ValueError("clients, examples and seconds must be lists")
    lists = cast(list[list[int]], columns)
    if len({len(column) for column in lists}) != 1:
        raise ValueError("clients, examples and seconds differ in length")
    if not all(type(client) is int for client in lists[0]) or len(set(lists[0])) != len(lists[0]):
        raise ValueError("clients must be different numbers")
    return {client: (examples, seconds) for client, examples, seconds in zip(*lists, strict=True)}


def _plausible(examples: object, seconds: object, expected: ExpectedUpdate) -> tuple[int, float]:
    """A strategy weighs by `examples`, so a client must not claim just anything; `seconds` is for the record only."""
    if type(examples) is not int or not 1 <= examples <= expected.max_examples:
        raise ValueError(f"examples must be a number from 1 to {expected.max_examples}, not {shown(examples)}")
    sane = isinstance(seconds, float) and math.isfinite(seconds) and seconds >= 0
    return examples, float(cast(float, seconds)) if sane else 0.0
