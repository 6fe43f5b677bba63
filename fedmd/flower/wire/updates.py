"""Trained models on their way up, in mode=update, and how the server checks them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedmd.flower.wire.arrays import CheckedArrays, Slots, read_tensors
from fedmd.flower.wire.header import (
    HEADER,
    MODEL,
    PROTOCOL,
    check_header,
    content_hash,
    header_of,
    note_unasked,
    round_header,
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
        """The trained model's tensors by name."""
        return dict(self.arrays.to_torch_state_dict())


@dataclass(frozen=True)
class ExpectedUpdate:
    """What a valid update looks like: shape and dtype of every tensor, and the most samples a client may claim."""

    tensors: Slots
    max_examples: int


def update_request(
    run: str,
    round: int,
    clients: Sequence[int],
    exchange: str,
    proximal_mu: float,
    model_file: str = "",
    model: ArrayRecord | None = None,
    *,
    classes: int = 0,
) -> RecordDict:
    """Ask a node to train the models of `clients`; the server's model by file name or in the message.

    `classes` is what nodes need to know of the server's data, to build the model for theirs.
    """
    header = round_header(run, round, clients, exchange, model_file)
    header["proximal_mu"] = proximal_mu
    header["classes"] = classes
    return RecordDict({HEADER: header} if model is None else {HEADER: header, MODEL: model})


def narrow(message: Message, clients: Sequence[int]) -> None:
    """Make a request, in place, one for `clients` only (the attack mod's way to speak for the others)."""
    header_of(message)["clients"] = list(clients)


def update_reply(round: int, updates: Sequence[ClientUpdate]) -> RecordDict:
    """A node's answer to `update_request`."""
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


def read_own_updates(message: Message) -> list[ClientUpdate]:
    """The updates of a reply this process has just made itself (the attack mod's view; not validated)."""
    header = header_of(message)
    columns = (cast(list[float], header[name]) for name in ("clients", "examples", "seconds"))
    return [
        ClientUpdate(int(client), message.content.array_records[_key(int(client))], int(examples), seconds)
        for client, examples, seconds in zip(*columns, strict=True)
    ]


def read_updates(
    message: Message, round: int, clients: Sequence[int], expected: ExpectedUpdate
) -> tuple[list[ClientUpdate], list[Rejection]]:
    """Everything valid in a node's reply, and the reason for everything that is not. Never raises.

    One client's bad update does not cost the other clients of its node theirs. The tensors come back in the order of
    `expected`, whatever order they were sent in: robust strategies compare flattened models.
    """
    try:
        claims = _claims(check_header(message, round), expected)
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
            arrays = CheckedArrays(cast(ArrayRecord, record), expected.tensors, read_tensors(record, expected.tensors))
            updates.append(ClientUpdate(client, arrays, examples, seconds, content))
        except ValueError as error:
            rejections.append(Rejection(client, str(error), content))
    note_unasked(message, {_key(client) for client in clients}, clients[0], rejections)
    return updates, rejections


def _key(client: int) -> str:
    return f"update.{client}"


def _claims(header: ConfigRecord, expected: ExpectedUpdate) -> dict[int, tuple[object, object]]:
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
