"""Hostile replies through the server's whole way, in one process and in both modes: hundreds, or ten thousand.

What must hold: nothing raises; the model, the optimizer's or strategy's memory and the history are, bit for bit, those
of a server that only ever got the valid replies; whoever is refused is refused once, with a short printable reason.
"""

import builtins
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import Message as ProtoMessage
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fedmd.audit.reader import read_live, verify
from fedmd.config import RunConfig
from fedmd.flower.server import nodes as nodes_module
from fedmd.flower.wire.header import read_request
from fedmd.flower.wire.samples import batches_reply
from fedmd.flower.wire.updates import ClientUpdate, updates_reply
from fedmd.rounds.model import ServerModel
from fedmd.training.local import floating
from fedmd.training.setup import Setup, set_up
from fedmd.types import Action, StreamBatch
from tests.flower.federation import Outcome, federate
from tests.hostile.mutations import MUTATIONS, mutated
from tests.hostile.wire import WireGrid, arrays, header, the_reply, valid_batch, valid_update
from tests.inline import Clock, encoded

ROUNDS, HONEST, HOSTILE, BATCH, MOST = 2, 3, 22, 4, 24
NODES = {
    100 + place: [place] + ([HONEST + HOSTILE + place // 5] if place % 5 == 0 else [])
    for place in range(HONEST + HOSTILE)
}
CLIENTS = sum(map(len, NODES.values()))
PER_EXAMPLE = ROUNDS * HOSTILE
EXAMPLES = [7, pytest.param(135, marks=pytest.mark.slow)]  # in each mode 308 hostile replies, or 5,940
SETTINGS: dict[str, Any] = {
    "model": {"name": "cnn", "width": 2},
    "stream.clean_rounds": ROUNDS,
    "stream.accumulative_rounds": 0,
    "stream.trigger_rounds": 0,
    "stream.recovery_rounds": 0,
    "federation": {"clients": CLIENTS, "nodes": len(NODES), "round_timeout_s": 1.0},
    "limits": {"max_message_bytes": 2**26},  # what is valid of a message with more in it is used
    "runtime.evaluate_every": 100,
}
SAMPLES = {
    "defense": {"name": "dsc"},
    "threshold": {"name": "quantile", "fpr": 0.3},
    "history": {"name": "lag", "lag": 1},
}
UPDATES = {"mode": "update", "local": {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": MOST}}
ARMS: dict[str, list[dict[str, Any]]] = {
    "samples": [SAMPLES],
    "updates": [
        {**UPDATES, "defense": {"name": "none"}, "strategy": {"name": "fedavgm", "momentum": 0.5}},
        {**UPDATES, "defense": {"name": "none"}, "strategy": {"name": "fedmedian"}},
        {**UPDATES, "defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}},
    ],
}

# For each round and hostile node what becomes of its valid reply. One in twenty answers twice, one in forty not at all.
TRICK = st.tuples(st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
TRICKS = st.lists(TRICK, min_size=PER_EXAMPLE, max_size=PER_EXAMPLE)
Tricks = list[tuple[list[str], int]]
Weights = dict[str, np.ndarray]


class Hostile:
    """The nodes' answers: the first HONEST keep to the protocol, the others play their `tricks`. Remembers all."""

    def __init__(self, honest: Callable[[Message], RecordDict], tricks: Tricks) -> None:
        self._honest, self._tricks = honest, tricks
        self.mail: dict[tuple[int, int], tuple[Message, list[bytes]]] = {}
        self.changed = 0

    def __call__(self, node: int, request: Message) -> list[bytes]:
        round, place = read_request(request).round, node - 100
        valid = encoded(Message(self._honest(request), reply_to=request))
        mail = [valid]
        if place >= HONEST:
            names, seed = self._tricks[round * HOSTILE + place - HONEST]
            changed = mutated(valid, names, seed)
            mail = {0: [changed, valid], 1: [], 2: [valid, changed]}.get(seed % 40, [changed])
            self.changed += bool(mail) and mail != [valid]
        self.mail[round, node] = request, mail
        return mail


class Samples:
    """Honest batches, and what of a reply may be learned from: a second opinion, without a line of fedmd."""

    def __init__(self, start: Weights) -> None:
        """Samples depend on no model."""

    def honest(self, request: Message) -> RecordDict:
        """A node's proper answer."""
        asked = read_request(request)
        return batches_reply(asked.round, [self._batch(client, asked.round) for client in asked.clients])

    def valid(self, reply: ProtoMessage, values: dict[str, Any], client: int, round: int) -> Any:
        """The client's batch; None where there is no valid one."""
        found = valid_batch(reply, client, 10, BATCH)
        return StreamBatch(client, round, found["images"], found["labels"]) if found else None

    reply = staticmethod(batches_reply)

    def _batch(self, client: int, round: int) -> StreamBatch:
        rng = np.random.default_rng((client, round))
        return StreamBatch(client, round, rng.integers(0, 256, (BATCH, 1, 8, 8), np.uint8), rng.integers(0, 10, BATCH))


class Updates:
    """Likewise, with updates."""

    def __init__(self, start: Weights) -> None:
        self._start = start

    def honest(self, request: Message) -> RecordDict:
        """A node's proper answer."""
        asked = read_request(request)
        return updates_reply(asked.round, [self._update(client, asked.round) for client in asked.clients])

    def valid(self, reply: ProtoMessage, values: dict[str, Any], client: int, round: int) -> Any:
        """The client's update; None where there is no valid one."""
        if not valid_update(reply, values, client, self._start, MOST):
            return None
        place = list(_list(values["clients"])).index(client)
        sent = {name: Array(array) for name, array in arrays(reply, f"update.{client}").items()}
        return ClientUpdate(client, ArrayRecord(sent), int(_list(values["examples"])[place]), 0.1)

    reply = staticmethod(updates_reply)

    def _update(self, client: int, round: int) -> ClientUpdate:
        rng = np.random.default_rng((client, round))
        moved = {n: a + 0.01 * rng.standard_normal(a.shape).astype(np.float32) for n, a in self._start.items()}
        sent = {name: Array(np.asarray(array, np.float32)) for name, array in moved.items()}
        return ClientUpdate(client, ArrayRecord(sent), 1 + client % MOST, 0.1)


def _list(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value")).vals


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "time", Clock())


@pytest.fixture(autouse=True)
def no_pickle_was_loaded() -> Iterator[None]:
    yield
    assert not hasattr(builtins, "PICKLE_WAS_LOADED")


def bits(state: Any) -> Any:
    """A (nested) state dict with the bytes of every tensor in its place."""
    if isinstance(state, torch.Tensor):
        return str(state.dtype), list(state.shape), state.contiguous().numpy().tobytes()
    if isinstance(state, dict):
        return {key: bits(value) for key, value in state.items()}
    return [bits(value) for value in state] if isinstance(state, list | tuple) else state


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("kind", "messages"), [("samples", Samples), ("updates", Updates)])
def test_nothing_happens(
    make_config: Callable[..., RunConfig], tmp_path: Path, kind: str, messages: Any, examples: int
) -> None:
    configs = [make_config({**SETTINGS, **arm}) for arm in ARMS[kind]]
    setup = set_up(configs[0])
    start = {name: tensor.numpy() for name, tensor in floating(ServerModel(setup).net.state_dict()).items()}
    sides, counted = messages(start), Counter[str]()

    # Without shrinking: an example is two federations, and a failure names the client whose trick is to blame.
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(configs), TRICKS)
    def is_as_if_only_valid_replies_had_come(config: RunConfig, tricks: Tricks) -> None:
        here = replace(setup, data=replace(setup.data, config=config))
        answers = Hostile(sides.honest, tricks)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            attacked = play(config, here, answers, Path(folder, "attacked"))
            told = [r.entry for r in read_live(Path(folder, "attacked", "audit")) if r.entry.kind == "message"]
            assert type(verify(Path(folder, "attacked", "audit"))).__name__ == "Intact"
            valid = valid_messages(answers, sides)

            def only_valid(node: int, request: Message) -> list[bytes]:
                mine = valid[read_request(request).round, node]
                content = sides.reply(read_request(request).round, mine)
                return [encoded(Message(content, reply_to=request))] if mine else []

            reference = play(config, here, only_valid, Path(folder, "reference"))
        assert bits(attacked.server.state()) == bits(reference.server.state())
        moved = sum(bool((report.verdicts.actions != Action.REJECTED).any()) for report in attacked.reports)
        assert attacked.server.version == reference.server.version == moved
        assert len(attacked.reports) == ROUNDS
        counted["moved"] += moved
        for report in attacked.reports:
            learned = {m.client for (round, _), mine in valid.items() if round == report.round for m in mine}
            rest = set(range(CLIENTS)) - learned
            assert learned >= {client for node in list(NODES)[:HONEST] for client in NODES[node]}
            assert set(report.clients.tolist()) == learned
            refused = Counter(rejection.client for rejection in report.rejections)
            assert set(refused) >= rest and set(refused.values()) <= {1}
            reasons = {rejection.client: rejection.reason for rejection in report.rejections}
            assert all(0 < len(reason) <= 500 and reason.isprintable() for reason in reasons.values())
            mine = [entry for entry in told if entry.round == report.round]
            assert sorted(entry.client for entry in mine if entry.client is not None) == list(range(CLIENTS))  # once
            for entry in mine:
                if entry.client in rest:
                    assert (entry.action, entry.reason) == ("rejected", reasons[entry.client])
            counted["refused"] += len(rest)
            counted["learned from"] += len(learned)
        counted["changed"] += answers.changed

    is_as_if_only_valid_replies_had_come()
    enough = 0.8 * examples * PER_EXAMPLE
    assert counted["changed"] >= enough, counted
    assert counted["moved"] >= 0.9 * examples * ROUNDS, counted  # else, of what was valid, the defence left nothing
    assert counted["refused"] > enough / 2 and counted["learned from"] > enough / 4, counted


def play(config: RunConfig, setup: Setup, answers: Any, folder: Path) -> Outcome:
    return federate(WireGrid(NODES, answers), config, folder, setup=setup)


def valid_messages(answers: Hostile, sides: Any) -> dict[tuple[int, int], list[Any]]:
    """By round and node, in the order of its clients."""
    found: dict[tuple[int, int], list[Any]] = {}
    for (round, node), (request, mail) in answers.mail.items():
        reply = the_reply(mail, request)
        values = header(reply, round)
        mine = [] if values is None else [sides.valid(reply, values, client, round) for client in NODES[node]]
        found[round, node] = [message for message in mine if message is not None]
    return found
