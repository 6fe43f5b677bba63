"""What the ten thousand replies, or reading Flower's code, have found: the smallest example of each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message
from flwr.proto.message_pb2 import Message as ProtoMessage
from httpx import ConnectError
from torch import nn

from fedmd.config import RunConfig
from fedmd.flower.server import nodes as nodes_module
from fedmd.flower.strategies.replies import read_state, slots_of
from fedmd.flower.wire.header import INFO, info_request, read_info, read_request
from fedmd.flower.wire.reasons import error_of, shown
from fedmd.flower.wire.samples import ExpectedBatch, batches_reply
from fedmd.flower.wire.updates import UPDATE, ExpectedUpdate, read_updates
from fedmd.rounds.records import Collected
from fedmd.types import StreamBatch
from tests.flower.federation import sample_collector
from tests.flower.wire.examples import asked, read_round
from tests.hostile.wire import ROUND, WireGrid, answer, batch, request, update
from tests.inline import Clock, encoded

Make = Callable[..., RunConfig]
EXPECTED = ExpectedBatch((1, 8, 8), 10, 4)
WEIGHTS = ExpectedUpdate({"w": ((2, 3), np.dtype(np.float32))}, 50)
MODEL = nn.Linear(2, 2)


# -- what would have ended the run ------------------------------------------------------------------------------------


@pytest.fixture
def collect(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`collect(mail)`: a round of nodes 1 and 2, for clients 0 and 1; what `mail[node](honest)` makes of its answer."""
    monkeypatch.setattr(nodes_module, "time", Clock())

    def build(mail: dict[int, Callable[[Message], list[bytes]]]) -> Collected[StreamBatch]:
        def answers(node: int, request: Message) -> list[bytes]:
            asked = read_request(request)
            content = batches_reply(asked.round, [batch(client, asked.round) for client in asked.clients])
            honest = Message(content, reply_to=request)
            return mail[node](honest) if node in mail else [encoded(honest)]

        config = make_config({"federation": {"clients": 2, "nodes": 2}})
        return sample_collector(WireGrid({1: [0], 2: [1]}, answers), config)(0, (0, 1), MODEL)

    return build


def undecodable(honest: Message) -> list[bytes]:
    """A record of no kind: Flower's own reader raises."""
    message = ProtoMessage.FromString(encoded(honest))
    message.content.items.add(key="x")
    return [message.SerializeToString()]


def nothing(honest: Message) -> list[bytes]:
    """Neither content nor error."""
    message = ProtoMessage.FromString(encoded(honest))
    message.ClearField("content")
    return [message.SerializeToString()]


@pytest.mark.parametrize("mail", [undecodable, nothing, lambda honest: [b"\xff\xff\xff"]])
def test_an_answer_that_flower_cannot_decode_costs_its_own_node_alone(collect: Any, mail: Any) -> None:
    for node in (1, 2):
        collected = collect({node: mail})
        assert [kept.client for kept in collected.messages] == [2 - node]
        (rejection,) = collected.rejections
        assert rejection.client == node - 1 and "its answer cannot be decoded" in rejection.reason


def test_a_superlink_that_cannot_be_reached_is_nobodys_bad_answer(collect: Any) -> None:
    def gone(*_: Any) -> Any:
        raise ConnectError("refused")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(ConnectError):
        patch.setattr(WireGrid, "pull_messages", gone)
        collect({})


def test_an_answer_in_somebody_elses_name(collect: Any) -> None:
    def as_node(sender: int) -> Callable[[Message], list[bytes]]:
        def forged(honest: Message) -> list[bytes]:
            message = ProtoMessage.FromString(encoded(honest))
            message.metadata.src_node_id = sender
            return [message.SerializeToString()]

        return forged

    collected = collect({1: as_node(2)})
    assert [kept.client for kept in collected.messages] == [1]
    assert [(r.client, r.reason) for r in collected.rejections] == [(0, "no answer before the deadline")]
    assert len(collect({1: as_node(1)}).messages) == 2


def test_of_two_answers_the_first_counts(collect: Any) -> None:
    def twice(honest: Message) -> list[bytes]:
        other = Message(batches_reply(0, [StreamBatch(0, 0, batch(9).images, np.zeros(4, np.int64))]), reply_to=honest)
        other.metadata.__dict__.update(honest.metadata.__dict__)
        return [encoded(honest), encoded(other)]

    collected = collect({1: twice})
    assert [int(kept.images[0, 0, 0, 0]) for kept in collected.messages] == [0, 1] and collected.rejections == ()


@pytest.mark.parametrize("dtype", [np.longdouble, np.complex64, np.uint64, ">i8", "U3"])
def test_a_counter_that_pytorch_cannot_hold(dtype: Any) -> None:
    """A net with batch norm in anybody's ServerApp; np.longdouble made torch.from_numpy raise TypeError."""
    record = ArrayRecord({"count": Array(np.zeros((), dtype))})
    with pytest.raises(ValueError, match="count must be any number"):
        read_state(record, slots_of({"count": torch.tensor(3)}))
    for fine in (np.int64, np.float32, np.float64, np.uint8):
        read = read_state(ArrayRecord({"count": Array(np.full((), 7, fine))}), slots_of({"count": torch.tensor(3)}))
        assert int(read["count"]) == 7


# -- one reason for a client and round, short and printable ---------------------------------------------------------


def test_a_refused_client_gets_one_reason() -> None:
    content = batches_reply(ROUND, [batch(1), batch(2)])
    batches, rejections = read_round(answer(content), ROUND, [0, 1], EXPECTED)
    assert [kept.client for kept in batches] == [1]
    assert [(r.client, r.reason) for r in rejections] == [(0, "there is no batch with images and labels")]
    updates, rejections = read_updates(answer(batches_reply(ROUND, [batch(2)])), ROUND, [0, 1], WEIGHTS)
    assert updates == [] and [r.client for r in rejections] == [0, 1]


@pytest.mark.parametrize(
    "value", ["A" * 10**6, b"\xff" * 10**6, ["\u202e" * 99] * 10**5, float("nan"), True, 1.0, [], -(2**63)]
)
@pytest.mark.parametrize("field", ["protocol", "round"])
def test_a_lie_in_the_header_is_told_in_few_words(field: str, value: Any) -> None:
    content = batches_reply(ROUND, [batch(0)])
    content["fedmd"] = ConfigRecord({**content.config_records["fedmd"], field: value})
    (rejection,) = read_round(answer(content), ROUND, [0], EXPECTED)[1]
    assert len(rejection.reason) < 400 and rejection.reason.isprintable()


@pytest.mark.parametrize("reason", ["", "\n \n", "\x1b[2J" * 10**5, "ok\n" + "\u2028\x00" * 20, "x" * 10**6])
def test_an_error_is_told_in_one_line(reason: str) -> None:
    text = error_of(answer(Error(7, reason)))
    assert text.startswith("the node answered with error 7: ") and text.isprintable() and 32 < len(text) < 400


def test_shown() -> None:
    assert shown([1, "a", b"b"]) == "[1, 'a', b'b']"
    assert shown(list(range(9))) == "[0, 1, 2, 3, 4, ...]"
    assert shown("x\n" * 99) == repr("x\n" * 20) + "..."


# -- who a number speaks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [[True], [0.0], ["0"], [0, 0]])
def test_clients_are_different_numbers(clients: list[Any]) -> None:
    content = update(w=np.ones((2, 3), np.float32))
    n = len(clients)
    header = {"protocol": 1, "round": ROUND, "clients": clients, "examples": [1] * n, "seconds": [0.0] * n}
    content["fedmd"] = ConfigRecord(header)
    updates, rejections = read_updates(answer(content), ROUND, [0], WEIGHTS)
    assert updates == [] and [r.reason for r in rejections] == ["clients must be different numbers"]


@pytest.mark.parametrize("examples", [[0], [-1], [51], [2**63 - 1], [True], [1.0], ["9"], 9, [], [float("nan")]])
def test_lies_about_the_number_of_examples(examples: Any) -> None:
    content = update(w=np.ones((2, 3), np.float32))
    content["fedmd"] = ConfigRecord({**content.config_records["fedmd"], "examples": examples})
    updates, rejections = read_updates(answer(content), ROUND, [0], WEIGHTS)
    assert updates == [] and len(rejections) == 1


def test_requests_are_not_replies() -> None:
    """A node that sends its request back."""
    for sent, kind in ((info_request("{}"), INFO), (asked("{}", ROUND, [0]), UPDATE)):
        echo = Message(sent, reply_to=request(sent, kind))
        assert read_round(echo, ROUND, [0], EXPECTED)[0] == [] == read_updates(echo, ROUND, [0], WEIGHTS)[0]
        with pytest.raises(ValueError, match=r"ids below|wants_model"):
            read_info(echo, 2)
