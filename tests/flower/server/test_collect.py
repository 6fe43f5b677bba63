"""The collector against a grid made of plain functions: silence, doubles, latecomers, and who gets the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.flower.server.collect import Collector
from fedmd.flower.wire.header import INFO, info_reply, read_request
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage
from fedmd.flower.wire.samples import STREAM, batches_reply
from fedmd.rounds.records import Collected
from fedmd.types import StreamBatch
from tests.flower.federation import sample_collector
from tests.inline import Inline, Node

Make = Callable[..., RunConfig]
Answer = Callable[[Message], Message | None]  # None: it never answers


def batch(client: int, round: int) -> StreamBatch:
    images = np.full((2, 1, 8, 8), 10 * client + round, np.uint8)
    return StreamBatch(client, round, images, np.array([client % 10, 1]))


def node(*clients: int, wants_model: bool = False, stream: Answer | None = None) -> Answer:
    """A node that answers for `clients`; `stream` replaces what it does in a round."""

    def answer(request: Message) -> Message | None:
        if request.metadata.message_type == INFO:
            return Message(info_reply(clients, wants_model=wants_model), reply_to=request)
        if stream is not None:
            return stream(request)
        asked = read_request(request)
        return Message(batches_reply(asked.round, [batch(c, asked.round) for c in asked.clients]), reply_to=request)

    return answer


def sending(answer: Answer) -> Node:
    return lambda request: [] if (reply := answer(request)) is None else [reply]


@pytest.fixture
def collector(make_config: Make) -> Callable[..., tuple[Collector[StreamBatch], Inline]]:
    """What collects from these nodes, which have said who they are; and the grid."""

    def build(nodes: dict[int, Answer], exchange: Exchange | None = None, wanted: int | None = None) -> Any:
        settings = {"clients": 4, "nodes": wanted or len(nodes), "round_timeout_s": 0.3}
        grid = Inline({number: sending(answer) for number, answer in nodes.items()})
        return sample_collector(grid, make_config({"federation": settings}), exchange), grid

    return build


Build = Callable[..., tuple[Collector[StreamBatch], Inline]]
MODEL = nn.Linear(2, 2)


def reasons(collected: Collected[StreamBatch]) -> dict[int, str]:
    return {rejection.client: rejection.reason for rejection in collected.rejections}


def test_replies_come_in_the_order_of_their_clients(collector: Build) -> None:
    collect, _ = collector({70: node(3, 0), 5: node(2), 900: node(1)})
    for round in range(5):
        collected = collect(round, (0, 1, 2, 3), MODEL)
        assert [kept.client for kept in collected.messages] == [0, 1, 2, 3]
        assert [int(kept.images[0, 0, 0, 0]) for kept in collected.messages] == [c * 10 + round for c in range(4)]
        assert collected.rejections == ()


def test_bytes_are_those_of_the_arrays(collector: Build) -> None:
    collect, _ = collector({1: node(0, 1, 2, 3)})
    images, labels = 2 * 64, 2 * 8
    overhead = 128 + 128 + len("images") + len("labels")  # two .npy headers and the keys
    assert collect(0, (1, 2), MODEL).bytes_received == 2 * (images + labels + overhead)


def test_only_the_nodes_of_the_asked_clients_are_asked_and_for_these_alone(collector: Build) -> None:
    collect, grid = collector({1: node(0, 1), 2: node(2), 3: node(3)})
    collected = collect(4, (1, 2), MODEL)
    asked = {number: read_request(m).clients for number, m in grid.asked(STREAM).items()}
    assert asked == {1: (1,), 2: (2,)}
    assert [kept.client for kept in collected.messages] == [1, 2]


def test_a_silent_node_costs_its_own_clients_only(collector: Build) -> None:
    collect, _ = collector({1: node(0, 2, stream=lambda request: None), 2: node(1), 3: node(3)})
    collected = collect(0, (0, 1, 2, 3), MODEL)
    assert [kept.client for kept in collected.messages] == [1, 3]
    assert reasons(collected) == {0: "no answer before the deadline", 2: "no answer before the deadline"}


def test_a_node_that_left_counts_as_silent(collector: Build) -> None:
    collect, grid = collector({1: node(0, 1), 2: node(2, 3)})
    del grid.nodes[2]
    collected = collect(0, (0, 2), MODEL)
    assert [kept.client for kept in collected.messages] == [0]
    assert reasons(collected) == {2: "no answer before the deadline"}


def test_a_client_that_raises_costs_one_round(collector: Build) -> None:
    def fails_in_round_1(request: Message) -> Message:
        asked = read_request(request)
        if asked.round == 1:
            return Message(Error(2, "ValueError: my disk is gone"), reply_to=request)
        return Message(batches_reply(asked.round, [batch(2, asked.round)]), reply_to=request)

    collect, _ = collector({1: node(0, 1, 3), 2: node(2, stream=fails_in_round_1)})
    rounds = [collect(round, (0, 1, 2, 3), MODEL) for round in range(3)]
    assert [len(collected.messages) for collected in rounds] == [4, 3, 4]
    assert "my disk is gone" in reasons(rounds[1])[2]


def test_a_late_reply_is_not_taken_for_this_rounds(collector: Build) -> None:
    """The node answers every request with its answer to the one before."""
    held: list[Message] = []

    def one_behind(request: Message) -> Message | None:
        asked = read_request(request)
        held.append(Message(batches_reply(asked.round, [batch(0, asked.round)]), reply_to=request))
        return held[-2] if len(held) > 1 else None

    collect, _ = collector({1: node(0, stream=one_behind), 2: node(1, 2, 3)})
    for round in range(3):
        collected = collect(round, (0, 1), MODEL)
        assert [kept.client for kept in collected.messages] == [1]
        assert reasons(collected) == {0: "no answer before the deadline"}


def test_an_old_round_in_a_fresh_reply_is_refused(collector: Build) -> None:
    def replay(request: Message) -> Message:
        return Message(batches_reply(0, [batch(0, 0)]), reply_to=request)

    collect, _ = collector({1: node(0, stream=replay), 2: node(1, 2, 3)})
    assert [kept.client for kept in collect(0, (0, 1), MODEL).messages] == [0, 1]
    assert reasons(collect(1, (0, 1), MODEL)) == {0: "the answer is for round 0, not 1"}


def test_nobody_answers_for_a_client_of_another_node(collector: Build) -> None:
    def greedy(request: Message) -> Message:
        return Message(batches_reply(0, [batch(c, 0) for c in (0, 1)]), reply_to=request)

    collect, _ = collector({1: node(0, stream=greedy), 2: node(1, 2, 3)})
    collected = collect(0, (0, 1), MODEL)
    assert [kept.client for kept in collected.messages] == [0, 1]
    assert "batch.1" in reasons(collected)[0]


# -- who takes part -----------------------------------------------------------------------------------------------


def test_two_nodes_that_claim_one_client(collector: Build) -> None:
    """One of the two is out with all it claims; who else it stood for is refused in every round."""
    collect, _ = collector({1: node(0, 1), 2: node(1, 2), 3: node(3)})
    collected = collect(0, (0, 1, 2, 3), MODEL)
    assert {1, 3} < {kept.client for kept in collected.messages} and len(collected.messages) == 3
    assert list(reasons(collected).values()) == ["no node answers for it"]
    collect, grid = collector({1: node(0, 1, 2, 3), 2: node(0, 1, 2, 3)})
    assert len(collect(0, (0, 1, 2, 3), MODEL).messages) == 4
    assert len(grid.asked(STREAM)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda request: None,
        lambda request: Message(Error(2, "no"), reply_to=request),
        lambda request: Message(RecordDict(), reply_to=request),
        lambda request: Message(info_reply([99], wants_model=False), reply_to=request),
    ],
)
def test_a_node_that_cannot_say_who_it_is_has_no_part(collector: Build, bad: Answer) -> None:
    collect, _ = collector({1: node(0, 1, 2, 3), 2: bad})
    assert len(collect(0, (0, 1, 2, 3), MODEL).messages) == 4
    collect, _ = collector({1: node(0, 1, 2), 2: bad})
    assert reasons(collect(0, (0, 1, 2, 3), MODEL)) == {3: "no node answers for it"}


def test_nodes_that_do_not_come(collector: Build) -> None:
    collector({1: node(0, 1, 2, 3)}, wanted=2)  # late, but everybody is spoken for
    with pytest.raises(ConfigError, match="of 2 nodes 0 came"):
        collector({}, wanted=2)


# -- ahead of time ------------------------------------------------------------------------------------------------


def asked_for(grid: Inline) -> list[tuple[int, int, bool]]:
    """(round, node, whether with the model) of each request for batches, in their order."""
    asked = [(m.metadata.dst_node_id, read_request(m)) for m in grid.requests if m.metadata.message_type == STREAM]
    return [(request.round, number, request.model is not None) for number, request in asked]


def test_who_does_not_look_at_the_model_is_asked_while_the_server_learns(make_config: Make) -> None:
    settings = {"clients": 4, "nodes": 3, "round_timeout_s": 0.3}
    answers = {1: node(0), 2: node(1, 2, wants_model=True), 3: node(3)}
    grid = Inline({number: sending(answer) for number, answer in answers.items()})
    changes = {"federation": settings, "runtime.overlap": True, "stream.clean_rounds": 2}
    config = make_config({**changes, "stream.accumulative_rounds": 0, "stream.recovery_rounds": 0})
    collect, rounds = sample_collector(grid, config, InMessage()), config.stream.rounds
    assert rounds == 3
    everybody = [(1, False), (2, True), (3, False)]
    for round in range(rounds):
        collected = collect(round, (0, 1, 2, 3), MODEL)
        assert [int(kept.images[0, 0, 0, 0]) for kept in collected.messages] == [c * 10 + round for c in range(4)]
        now = [(number, model) for of, number, model in asked_for(grid) if of == round]
        ahead = [(number, model) for of, number, model in asked_for(grid) if of == round + 1]
        assert sorted(now) == everybody
        assert ahead == ([(1, False), (3, False)] if round + 1 < rounds else [])


def test_a_node_that_is_silent_when_asked_ahead_costs_its_own_clients_only(make_config: Make) -> None:
    answers = {1: node(0, 1, stream=lambda request: None), 2: node(2, 3)}
    grid = Inline({number: sending(answer) for number, answer in answers.items()})
    settings = {"clients": 4, "nodes": 2, "round_timeout_s": 0.3}
    collect = sample_collector(grid, make_config({"federation": settings, "runtime.overlap": True}), None)
    for round in range(3):
        collected = collect(round, (0, 1, 2, 3), MODEL)
        assert [kept.client for kept in collected.messages] == [2, 3]
        assert reasons(collected) == dict.fromkeys((0, 1), "no answer before the deadline")


# -- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_reference", [True, False])
def test_only_subscribers_get_the_model(collector: Build, tmp_path: Path, by_reference: bool) -> None:
    exchange = ByReference(tmp_path) if by_reference else InMessage()
    collect, grid = collector({1: node(0), 2: node(1, 2, wants_model=True), 3: node(3)}, exchange)
    collect(0, (0, 1, 3), MODEL)
    given = {number: read_request(m) for number, m in grid.asked(STREAM).items()}
    assert [(bool(r.model_file), r.model is not None) for r in (given[1], given[3])] == [(False, False)] * 2
    assert (bool(given[2].model_file), given[2].model is not None) == (by_reference, not by_reference)
