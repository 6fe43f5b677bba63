"""Answers that never come, come too late, or come by the thousand: a round ends at its deadline with who is left."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message

from fedmd.config import RunConfig
from fedmd.flower.server import nodes as nodes_module
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.wire.header import read_request
from fedmd.flower.wire.samples import STREAM
from fedmd.flower.wire.updates import ClientUpdate, updates_reply
from fedmd.rounds.model import ServerModel
from fedmd.training.local import floating
from fedmd.training.setup import set_up
from fedmd.types import RoundReport
from tests.flower.federation import federate
from tests.flower.wire.examples import asked
from tests.hostile.wire import WireGrid
from tests.inline import Clock, decoded, encoded

Make = Callable[..., RunConfig]
DEADLINE_S, CLIENTS, ROUNDS = 30.0, 4, 3
NODES = {100 + client: [client] for client in range(CLIENTS)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(nodes_module, "time", clock)
    return clock


def ask(config: RunConfig, grid: WireGrid) -> dict[int, Message]:
    requests = {node: Message(asked("{}", 0, clients), node, STREAM) for node, clients in NODES.items()}
    return dict(Nodes(grid, config, "").ask(requests))


def federation(**changes: Any) -> dict[str, Any]:
    return {"federation": {"clients": CLIENTS, "nodes": CLIENTS, "round_timeout_s": DEADLINE_S}, **changes}


def prompt(node: int, request: Message) -> list[bytes]:
    return [encoded(Message(updates_reply(0, []), reply_to=request))]


def test_nobody_waits_longer_than_for_the_last_answer_or_the_deadline(make_config: Make, clock: Clock) -> None:
    config = make_config(federation())
    assert set(ask(config, WireGrid(NODES, prompt))) == set(NODES) and clock.now == 0
    grid = WireGrid(NODES, lambda node, request: prompt(node, request) if node != 102 else [])
    assert set(ask(config, grid)) == set(NODES) - {102}
    assert DEADLINE_S <= clock.now < DEADLINE_S + 1


@pytest.mark.parametrize(("deadline_s", "kept_s"), [(30.0, 3600.0), (1000.0, 10_000.0)])
def test_requests_nobody_answers_are_not_kept_for_ever(
    make_config: Make, clock: Clock, deadline_s: float, kept_s: float
) -> None:
    kept: list[float] = []

    def note(node: int, request: Message) -> list[bytes]:
        kept.append(decoded(encoded(request)).metadata.ttl)
        return prompt(node, request)

    ask(make_config({"federation": {"clients": CLIENTS, "round_timeout_s": deadline_s}}), WireGrid(NODES, note))
    assert kept == [kept_s] * len(NODES)


@pytest.mark.parametrize("over_http", [True, False])
def test_what_came_while_the_server_was_held_up_is_taken(make_config: Make, clock: Clock, over_http: bool) -> None:
    class Sleeping(WireGrid):
        def pull_messages(self, message_ids: Any) -> list[Message]:
            if clock.now > 0:
                return super().pull_messages(message_ids)
            clock.now = 2 * DEADLINE_S
            return []

    class InMemory:
        def __init__(self, grid: WireGrid) -> None:
            self.push_messages, self.pull_messages = grid.push_messages, grid.pull_messages

    grid: Any = Sleeping(NODES, prompt)
    assert set(ask(make_config(federation()), grid if over_http else InMemory(grid))) == set(NODES)


def test_a_flood_of_answers_to_nothing_is_dropped(make_config: Make, clock: Clock) -> None:
    """A thousand with every poll, for ever: those that were asked for still get through, and the round still ends."""

    class Flooded(WireGrid):
        dropped = 0

        def pull_messages(self, message_ids: Any) -> list[Message]:
            junk = decoded(prompt(0, Message(updates_reply(0, []), 100, STREAM))[0])
            junk.metadata.__dict__["_reply_to_message_id"] = "nothing"
            self.dropped += 1000
            return [junk] * 1000 + super().pull_messages(message_ids)

    grid = Flooded(NODES, lambda node, request: prompt(node, request) if node != 101 else [])
    replies = ask(make_config(federation()), grid)
    assert set(replies) == set(NODES) - {101} and grid.dropped > 10_000
    assert DEADLINE_S <= clock.now < DEADLINE_S + 1


def test_a_node_that_dies_while_the_others_work_costs_itself_alone(make_config: Make, clock: Clock) -> None:
    class Leaving(WireGrid):
        def push_messages(self, messages: Any) -> list[Any]:
            (message,) = messages
            return [None] if message.metadata.dst_node_id == 103 else super().push_messages([message])

    assert set(ask(make_config(federation()), Leaving(NODES, prompt))) == set(NODES) - {103} and clock.now == 0


# -- mode=update ----------------------------------------------------------------------------------------------------


@pytest.fixture
def train(make_config: Make, tmp_path: Path, clock: Clock) -> Any:
    """`train(answers)`: reports and final model of a federation; `answers(round, client, honest)` is what is sent."""
    local = {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": 24}
    stages = {f"stream.{name}_rounds": 0 for name in ("accumulative", "trigger", "recovery")}
    config = make_config(
        federation(**stages, mode="update", model={"name": "cnn", "width": 2}, local=local)
        | {"stream.clean_rounds": ROUNDS, "defense": {"name": "none"}}
    )

    numbers, before = itertools.count(), floating(ServerModel(set_up(config)).net.state_dict())

    def run(answers: Callable[[int, int, bytes], list[bytes]]) -> tuple[list[RoundReport], list[torch.Tensor]]:
        def answer(node: int, request: Message) -> list[bytes]:
            round, client = read_request(request).round, node - 100
            rng = np.random.default_rng((round, client))
            moved = {n: Array(a.numpy() + rng.random(a.shape, np.float32)) for n, a in before.items()}
            content = updates_reply(round, [ClientUpdate(client, ArrayRecord(moved), 10, 0.1)])
            return answers(round, client, encoded(Message(content, reply_to=request)))

        done = federate(WireGrid(NODES, answer), config, tmp_path / str(next(numbers)))
        return done.reports, list(done.weights.values())

    return run


def test_updates_that_never_come(train: Any) -> None:
    """One client silent, then all, then none: every round is reported and only what came is averaged."""
    silent_in = {0: {2}, 1: set(range(CLIENTS)), 2: set()}
    reports, _ = train(lambda round, client, honest: [] if client in silent_in[round] else [honest])
    assert [set(range(CLIENTS)) - set(report.clients.tolist()) for report in reports] == list(silent_in.values())
    for report in reports:
        told = [(r.client, r.reason) for r in report.rejections]
        assert told == [(client, "no answer before the deadline") for client in sorted(silent_in[report.round])]


def test_an_update_that_comes_a_round_late_is_not_averaged(train: Any) -> None:
    held: list[bytes] = []

    def one_behind(round: int, client: int, honest: bytes) -> list[bytes]:
        if client != 1:
            return [honest]
        held.append(honest)
        return held[-2:-1]

    late, model = train(one_behind)
    _, without = train(lambda round, client, honest: [] if client == 1 else [honest])
    assert all(1 not in report.clients for report in late)
    assert all(torch.equal(a, b) for a, b in zip(model, without, strict=True))
