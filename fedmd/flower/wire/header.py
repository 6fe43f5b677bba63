"""What all messages have in common: the protocol's header, who answers for whom, and the checks of a reply's head."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedmd.flower.wire.arrays import pieces, size_of
from fedmd.flower.wire.reasons import error_of, shown
from fedmd.types import Rejection

PROTOCOL = 1
INFO = "query.info"
HEADER, MODEL = "fedmd", "model"


@dataclass(frozen=True)
class Request:
    """What the server asks of a node in a round: what `clients` have for it.

    run: the whole configuration, as JSON.
    session: the run's name, the same when its server is started again.
    exchange: the folder that a simulation's processes share; "" where there is none.
    model_file, model: the server's model by file name or in the message; "" and None for a node without a wish for it.
    batches: of mode=stream: those of so many rounds, from `round` on, in one reply.
    proximal_mu: of mode=update, for FedProx.
    classes: of mode=update: what the model tells apart, for nodes with data of their own.
    """

    run: str
    round: int
    clients: tuple[int, ...]
    session: str = ""
    exchange: str = ""
    model_file: str = ""
    model: ArrayRecord | None = None
    batches: int = 1
    proximal_mu: float = 0.0
    classes: int = 0


def request_content(request: Request) -> RecordDict:
    """`request` as it travels."""
    header = ConfigRecord(
        {
            "protocol": PROTOCOL,
            "run": request.run,
            "round": request.round,
            "clients": list(request.clients),
            "session": request.session,
            "exchange": request.exchange,
            "model_file": request.model_file,
            "batches": request.batches,
            "proximal_mu": request.proximal_mu,
            "classes": request.classes,
        }
    )
    return RecordDict({HEADER: header} if request.model is None else {HEADER: header, MODEL: request.model})


def info_request(run: str, exchange: str = "") -> RecordDict:
    """Ask a node which clients it answers for and whether it wants the model."""
    return RecordDict({HEADER: ConfigRecord({"protocol": PROTOCOL, "run": run, "exchange": exchange})})


def info_reply(clients: Sequence[int], *, wants_model: bool) -> RecordDict:
    """A node's answer to `info_request`."""
    header = ConfigRecord({"protocol": PROTOCOL, "clients": list(clients), "wants_model": wants_model})
    return RecordDict({HEADER: header})


def read_info(message: Message, clients: int) -> tuple[tuple[int, ...], bool]:
    """The clients a node claims and its wish for the model. Raises ValueError with a reason."""
    header = _answer(message)
    claimed: object = header.get("clients")
    wants_model = header.get("wants_model")
    if not isinstance(claimed, list) or not all(type(client) is int and 0 <= client < clients for client in claimed):
        raise ValueError(f"clients must be a list of ids below {clients}")
    if len(set(claimed)) != len(claimed):
        raise ValueError("a client is claimed twice")
    if not isinstance(wants_model, bool):
        raise ValueError("wants_model must be a boolean")
    return tuple(cast(list[int], claimed)), wants_model


def read_request(message: Message) -> Request:
    """A client's view of any request. Raises ValueError when the protocol differs."""
    header = header_of(message)
    if header.get("protocol") != PROTOCOL:
        raise ValueError(f"protocol {header.get('protocol')!r} is not {PROTOCOL}: server and client differ in version")
    return Request(
        run=str(header["run"]),
        round=cast(int, header.get("round", 0)),
        clients=tuple(cast(list[int], header.get("clients", []))),
        exchange=str(header.get("exchange", "")),
        model_file=str(header.get("model_file", "")),
        model=message.content.array_records.get(MODEL),
        proximal_mu=cast(float, header.get("proximal_mu", 0.0)),
        batches=cast(int, header.get("batches", 1)),
        classes=cast(int, header.get("classes", 0)),
        session=str(header.get("session", "")),
    )


def check_header(message: Message, round: int) -> ConfigRecord:
    """The head of a node's reply to a request of `round`. Raises ValueError with a reason when it is none."""
    header = _answer(message)
    if type(header.get("round")) is not int or header["round"] != round:
        raise ValueError(f"the answer is for round {shown(header.get('round'))}, not {round}")
    return header


def _answer(message: Message) -> ConfigRecord:
    """The head of any reply. Raises ValueError with a reason when it is an error, or of another protocol."""
    if message.has_error():
        raise ValueError(error_of(message))
    header = header_of(message)
    protocol = header.get("protocol")
    if type(protocol) is not int or protocol != PROTOCOL:
        raise ValueError(f"protocol must be {PROTOCOL}, not {shown(protocol)}")
    return header


def note_unasked(message: Message, asked: set[str], client: int, rejections: list[Rejection]) -> None:
    """Add to `rejections` a note on records beside the header and those `asked` for, booked on `client`.

    One that is refused anyway gets none: there is one reason for a client and round.
    """
    extra = sorted(set(message.content) - asked - {HEADER})
    if extra and client not in {rejection.client for rejection in rejections}:
        rejections.append(Rejection(client, f"unexpected records {shown(extra)} were ignored"))


def header_of(message: Message) -> ConfigRecord:
    """The record with the protocol's own fields. Raises ValueError when there is none."""
    header = message.content.config_records.get(HEADER)
    if header is None:
        raise ValueError(f"the config record {HEADER!r} is missing")
    return header


def content_hash(message: Message, key: str) -> str | None:
    """SHA-256 of what the array record `key` holds, as it came: names, declared types and shapes, bytes.

    Of a reply that was measured first (see `extent`): all of that is long only where much was sent.
    """
    record = message.content.array_records.get(key)
    if record is None:
        return None
    digest = hashlib.sha256()
    for name in sorted(record):
        array = record[name]
        digest.update(f"{name!r} {array.dtype!r} {array.shape!r} {array.stype!r} {size_of(array)} ".encode())
        for piece in pieces(array):
            digest.update(piece)
    return digest.hexdigest()
