"""The collector against a grid made of plain functions: silence, doubles, latecomers, and who gets the model."""

import itertools
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.flower.server.streaming import FlowerCollector
from fedmd.flower.wire import INFO, STREAM, Expected, info_reply, read_request, stream_reply
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage
from fedmd.rounds.session import Collected
from fedmd.types import StreamBatch

Make = Callable[..., RunConfig]
Node = Callable[[Message], Message | None]  # None: it never answers


class FakeGrid:
    """Nodes that answer as they please, in random order and not at the first poll; over the wire both ways."""

    def __init__(self, nodes: dict[int, Node], wire: SimpleNamespace) -> None:
        self.nodes, self._wire = nodes, wire
        self._numbers, self._random = itertools.count(), random.Random(0)
        self._replies: list[Message] = []
        self.requests: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = []
        for message in messages:
            if (node := self.nodes.get(message.metadata.dst_node_id)) is None:
                continue  # a node that has left: Flower returns no id
            message.metadata.__dict__["_message_id"] = f"request-{next(self._numbers)}"
            request = self._wire.over_the_wire(message)
            self.requests.append(request)
            if (answer := node(request)) is not None:
                self._replies.append(self._wire.over_the_wire(answer))
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        """Half of what is there, in any order: also replies to messages that nobody waits for."""
        self._random.shuffle(self._replies)
        half = -(-len(self._replies) // 2)
        pulled, self._replies = self._replies[:half], self._replies[half:]
        return pulled

    def of(self, kind: str) -> dict[int, Message]:
        return {m.metadata.dst_node_id: m for m in self.requests if m.metadata.message_type == kind}


def batch(client: int, round: int) -> StreamBatch:
    images = np.full((2, 1, 8, 8), 10 * client + round, np.uint8)
    return StreamBatch(client, round, images, np.array([client % 10, 1]))


def node(*clients: int, wants_model: bool = False, stream: Callable[[Message], Message | None] | None = None) -> Node:
    """A node that answers for `clients`; `stream` replaces what it does in a round."""

    def answer(request: Message) -> Message | None:
        if request.metadata.message_type == INFO:
            return Message(info_reply(clients, wants_model=wants_model), reply_to=request)
        if stream is not None:
            return stream(request)
        asked = read_request(request)
        return Message(stream_reply(asked.round, [batch(c, asked.round) for c in asked.clients]), reply_to=request)

    return answer


@pytest.fixture
def collector(make_config: Make, wire: SimpleNamespace) -> Callable[..., tuple[FlowerCollector, FakeGrid]]:
    def build(nodes: dict[int, Node], exchange: Exchange | None = None, wanted: int | None = None) -> Any:
        settings = {"clients": 4, "nodes": wanted or len(nodes), "round_timeout_s": 0.3}
        grid = FakeGrid(nodes, wire)
        expected = Expected((1, 8, 8), 10, 4)
        return FlowerCollector(grid, make_config({"federation": settings}), exchange or InMessage(), expected), grid

    return build


Build = Callable[..., tuple[FlowerCollector, FakeGrid]]
MODEL = nn.Linear(2, 2)


def reasons(collected: Collected) -> dict[int, str]:
    return {rejection.client: rejection.reason for rejection in collected.rejections}


def test_replies_come_in_the_order_of_their_clients(collector: Build) -> None:
    collect, _ = collector({70: node(3, 0), 5: node(2), 900: node(1)})
    collect.connect()
    for round in range(5):
        collected = collect(round, (0, 1, 2, 3), MODEL)
        assert [kept.client for kept in collected.batches] == [0, 1, 2, 3]
        assert [int(kept.images[0, 0, 0, 0]) for kept in collected.batches] == [c * 10 + round for c in range(4)]
        assert collected.rejections == ()


def test_bytes_are_those_of_the_arrays(collector: Build) -> None:
    collect, _ = collector({1: node(0, 1, 2, 3)})
    collect.connect()
    images, labels = 2 * 64, 2 * 8
    overhead = 128 + 128 + len("images") + len("labels")  # two .npy headers and the keys
    assert collect(0, (1, 2), MODEL).bytes_received == 2 * (images + labels + overhead)


def test_only_the_nodes_of_the_asked_clients_are_asked_and_for_these_alone(collector: Build) -> None:
    collect, grid = collector({1: node(0, 1), 2: node(2), 3: node(3)})
    collect.connect()
    collected = collect(4, (1, 2), MODEL)
    asked = {number: read_request(m).clients for number, m in grid.of(STREAM).items()}
    assert asked == {1: (1,), 2: (2,)}
    assert [kept.client for kept in collected.batches] == [1, 2]


def test_a_silent_node_costs_its_own_clients_only(collector: Build) -> None:
    collect, _ = collector({1: node(0, 2, stream=lambda request: None), 2: node(1), 3: node(3)})
    collect.connect()
    collected = collect(0, (0, 1, 2, 3), MODEL)
    assert [kept.client for kept in collected.batches] == [1, 3]
    assert reasons(collected) == {0: "no answer before the deadline", 2: "no answer before the deadline"}


def test_a_node_that_left_counts_as_silent(collector: Build) -> None:
    collect, grid = collector({1: node(0, 1), 2: node(2, 3)})
    collect.connect()
    del grid.nodes[2]
    collected = collect(0, (0, 2), MODEL)
    assert [kept.client for kept in collected.batches] == [0]
    assert reasons(collected) == {2: "no answer before the deadline"}


def test_a_client_that_raises_costs_one_round(collector: Build) -> None:
    def fails_in_round_1(request: Message) -> Message:
        asked = read_request(request)
        if asked.round == 1:
            return Message(Error(2, "ValueError: my disk is gone"), reply_to=request)
        return Message(stream_reply(asked.round, [batch(2, asked.round)]), reply_to=request)

    collect, _ = collector({1: node(0, 1, 3), 2: node(2, stream=fails_in_round_1)})
    collect.connect()
    rounds = [collect(round, (0, 1, 2, 3), MODEL) for round in range(3)]
    assert [len(collected.batches) for collected in rounds] == [4, 3, 4]
    assert "my disk is gone" in reasons(rounds[1])[2]


def test_a_late_reply_is_not_taken_for_this_rounds(collector: Build) -> None:
    """The node answers every request with its answer to the one before."""
    held: list[Message] = []

    def one_behind(request: Message) -> Message | None:
        asked = read_request(request)
        held.append(Message(stream_reply(asked.round, [batch(0, asked.round)]), reply_to=request))
        return held[-2] if len(held) > 1 else None

    collect, _ = collector({1: node(0, stream=one_behind), 2: node(1, 2, 3)})
    collect.connect()
    for round in range(3):
        collected = collect(round, (0, 1), MODEL)
        assert [kept.client for kept in collected.batches] == [1]
        assert reasons(collected) == {0: "no answer before the deadline"}


def test_an_old_round_in_a_fresh_reply_is_refused(collector: Build) -> None:
    def replay(request: Message) -> Message:
        return Message(stream_reply(0, [batch(0, 0)]), reply_to=request)

    collect, _ = collector({1: node(0, stream=replay), 2: node(1, 2, 3)})
    collect.connect()
    assert [kept.client for kept in collect(0, (0, 1), MODEL).batches] == [0, 1]
    assert reasons(collect(1, (0, 1), MODEL)) == {0: "the answer is for round 0, not 1"}


def test_nobody_answers_for_a_client_of_another_node(collector: Build) -> None:
    def greedy(request: Message) -> Message:
        return Message(stream_reply(0, [batch(c, 0) for c in (0, 1)]), reply_to=request)

    collect, _ = collector({1: node(0, stream=greedy), 2: node(1, 2, 3)})
    collect.connect()
    collected = collect(0, (0, 1), MODEL)
    assert [kept.client for kept in collected.batches] == [0, 1]
    assert "batch.1" in reasons(collected)[0]


# -- who takes part -----------------------------------------------------------------------------------------------


def test_two_nodes_that_claim_one_client(collector: Build) -> None:
    """One of the two is out with all it claims; who else it stood for is refused in every round."""
    collect, _ = collector({1: node(0, 1), 2: node(1, 2), 3: node(3)})
    collect.connect()
    collected = collect(0, (0, 1, 2, 3), MODEL)
    assert {1, 3} < {kept.client for kept in collected.batches} and len(collected.batches) == 3
    assert list(reasons(collected).values()) == ["no node answers for it"]
    collect, grid = collector({1: node(0, 1, 2, 3), 2: node(0, 1, 2, 3)})
    collect.connect()
    assert len(collect(0, (0, 1, 2, 3), MODEL).batches) == 4
    assert len(grid.of(STREAM)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        lambda request: None,
        lambda request: Message(Error(2, "no"), reply_to=request),
        lambda request: Message(RecordDict(), reply_to=request),
        lambda request: Message(info_reply([99], wants_model=False), reply_to=request),
    ],
)
def test_a_node_that_cannot_say_who_it_is_has_no_part(collector: Build, bad: Node) -> None:
    collect, _ = collector({1: node(0, 1, 2, 3), 2: bad})
    collect.connect()
    assert len(collect(0, (0, 1, 2, 3), MODEL).batches) == 4
    collect, _ = collector({1: node(0, 1, 2), 2: bad})
    collect.connect()
    assert reasons(collect(0, (0, 1, 2, 3), MODEL)) == {3: "no node answers for it"}


def test_nodes_that_do_not_come(collector: Build) -> None:
    collect, _ = collector({1: node(0, 1, 2, 3)}, wanted=2)
    collect.connect()  # late, but everybody is spoken for
    collect, _ = collector({}, wanted=2)
    with pytest.raises(ConfigError, match="of 2 nodes 0 came"):
        collect.connect()


# -- the model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_reference", [True, False])
def test_only_subscribers_get_the_model(collector: Build, tmp_path: Path, by_reference: bool) -> None:
    exchange = ByReference(tmp_path) if by_reference else InMessage()
    collect, grid = collector({1: node(0), 2: node(1, 2, wants_model=True), 3: node(3)}, exchange)
    collect.connect()
    collect(0, (0, 1, 3), MODEL)
    given = {number: read_request(m) for number, m in grid.of(STREAM).items()}
    assert [(bool(r.model_file), r.model is not None) for r in (given[1], given[3])] == [(False, False)] * 2
    assert (bool(given[2].model_file), given[2].model is not None) == (by_reference, not by_reference)
