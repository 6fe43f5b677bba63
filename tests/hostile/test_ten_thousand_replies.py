"""Ten thousand hostile replies through the server's whole way, in one process and in both modes.

What must hold: nothing raises; the model, the optimizer's state and the history are, bit for bit, those of a server
that only ever got the valid replies; whoever is refused is refused once, with a short printable reason.
"""

import builtins
import copy
import io
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.flower.server.client_grid import ClientGrid
from fedmd.flower.server.model_records import expected_update, records_of
from fedmd.flower.server.streaming import FlowerCollector
from fedmd.flower.server.update_session import UpdateSession, silent
from fedmd.rounds.global_model import GlobalModel
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.session import Collected, run_session
from fedmd.rounds.update_guard import UpdateGuard
from flwr.app import Array, ArrayRecord, Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmd.audit.reader import read_live, verify
from fedmd.audit.trail import AuditTrail
from fedmd.config import LimitsConfig, RunConfig
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.flower.server import nodes as nodes_module
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.strategies.catalogue import build_strategy
from fedmd.flower.wire import ClientUpdate, Expected, read_request, stream_reply, update_reply
from fedmd.flower.wire.model_exchange import InMessage
from fedmd.rounds.gate import Guard
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Placement
from fedmd.types import RoundReport, StreamBatch
from tests.hostile.mutations import MUTATIONS, mutated
from tests.hostile.wire import Clock, WireGrid, encoded, header, the_reply, valid_batch, valid_update

Make = Callable[..., RunConfig]
ROUNDS, HONEST, HOSTILE, BATCH, MOST = 2, 3, 22, 4, 24
NODES = {
    100 + place: [place] + ([HONEST + HOSTILE + place // 5] if place % 5 == 0 else [])
    for place in range(HONEST + HOSTILE)
}
CLIENTS = sum(map(len, NODES.values()))
EXAMPLES = 135  # x 2 rounds x 22 hostile nodes = 5,940 replies a mode, of which 5,000 must not be what was asked for
ENOUGH = 5_000
# Without shrinking: an example is two federations, and a failure names the client whose trick is to blame.
THOROUGH = settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
SETTINGS: dict[str, Any] = {
    "model": {"name": "cnn", "width": 2},
    "stream.clean_rounds": ROUNDS,
    "stream.accumulative_rounds": 0,
    "stream.trigger_rounds": 0,
    "stream.recovery_rounds": 0,
    "federation": {"clients": CLIENTS, "nodes": len(NODES), "round_timeout_s": 1.0},
    "runtime.evaluate_every": 100,
}

# For each round and hostile node what becomes of its valid reply. One in twenty answers twice, one in forty not at all.
TRICK = st.tuples(st.lists(st.sampled_from(sorted(MUTATIONS)), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
TRICKS = st.lists(TRICK, min_size=ROUNDS * HOSTILE, max_size=ROUNDS * HOSTILE)
Tricks = list[tuple[list[str], int]]


class Hostile:
    """The nodes' answers: the first HONEST keep to the protocol, the others play their `tricks`. Remembers all."""

    def __init__(self, honest: Callable[[Message], Any], tricks: Tricks) -> None:
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


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module, "time", Clock())


@pytest.fixture(autouse=True)
def no_pickle_was_loaded() -> Any:
    yield
    assert not hasattr(builtins, "PICKLE_WAS_LOADED")


def trained(config: RunConfig, folder: Path) -> tuple[FederatedData, BurnIn]:
    data = load_federated_data(config)
    return data, burn_in(config, data.images, data.split, placement=Placement(), cache_dir=folder)


def bits(state: Any) -> bytes:
    """Everything in a (nested) state dict, byte by byte."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def good_reasons(rejections: Sequence[Any]) -> bool:
    return all(0 < len(r.reason) <= 500 and r.reason.isprintable() for r in rejections)


# -- samples --------------------------------------------------------------------------------------------------------


def honest_batches(request: Message) -> Any:
    asked = read_request(request)
    return stream_reply(asked.round, [batch(client, asked.round) for client in asked.clients])


def batch(client: int, round: int) -> StreamBatch:
    rng = np.random.default_rng((client, round))
    return StreamBatch(client, round, rng.integers(0, 256, (BATCH, 1, 8, 8), np.uint8), rng.integers(0, 10, BATCH))


def everything(learner: OnlineLearner) -> bytes:
    return bits(learner.state())


def test_samples(make_config: Make, tmp_path: Path) -> None:
    changes = {
        "defense": {"name": "dsc"},
        "threshold": {"name": "quantile", "fpr": 0.3},
        "history": {"name": "lag", "lag": 1},
    }
    config = make_config({**SETTINGS, **changes})
    data, start = trained(config, tmp_path)
    first = OnlineLearner(config, data.images, data.split, start, Placement())
    counted: Counter[str] = Counter()

    @THOROUGH
    @given(TRICKS)
    def nothing_happens(tricks: Tricks) -> None:
        answers = Hostile(honest_batches, tricks)
        collect = FlowerCollector(WireGrid(NODES, answers), config, InMessage(), Expected((1, 8, 8), 10, BATCH))
        collect.connect()
        learner = copy.deepcopy(first)
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            with AuditTrail(Path(folder)) as trail:
                guard = Guard(config.quarantine, trail=trail)
                reports = [r.report for r in run_session(config, learner, collect, lambda round: "clean", guard)]
            told = [r.entry for r in read_live(Path(folder)) if r.entry.kind == "message"]
            assert type(verify(Path(folder))).__name__ == "Intact"

        valid: dict[int, list[StreamBatch]] = {}
        for (round, node), (request, mail) in answers.mail.items():
            reply = the_reply(mail, request)
            for client in NODES[node]:
                found = {} if header(reply, round) is None else valid_batch(reply, client, 10, BATCH)
                if found:
                    mine = StreamBatch(client, round, found["images"], found["labels"])
                    valid.setdefault(round, []).append(mine)

        def only_valid(round: int, clients: Sequence[int], model: nn.Module) -> Collected:
            return Collected(tuple(sorted(valid[round], key=lambda batch: batch.client)), (), 0)

        reference = copy.deepcopy(first)
        list(run_session(config, reference, only_valid, lambda round: "clean"))
        assert everything(learner) == everything(reference) != everything(first)

        for report in reports:
            heard = {one.client for one in valid[report.round]}
            assert heard >= {client for node in list(NODES)[:HONEST] for client in NODES[node]}
            assert set(report.clients.tolist()) == heard
            refused = Counter(r.client for r in report.rejections)
            assert set(refused) >= set(range(CLIENTS)) - heard and set(refused.values()) <= {1}
            assert good_reasons(report.rejections)
            mine = [entry for entry in told if entry.round == report.round]
            assert sorted(entry.client for entry in mine) == list(range(CLIENTS))  # each once
            assert {entry.client for entry in mine if entry.action == "rejected" and entry.client not in heard} == set(
                range(CLIENTS)
            ) - heard
            reasons = {r.client: r.reason for r in report.rejections}
            assert all(entry.reason == reasons[entry.client] for entry in mine if entry.client not in heard)
            counted["refused"] += CLIENTS - len(heard)
            counted["heard"] += len(heard)
        counted["changed"] += answers.changed

    nothing_happens()
    assert counted["changed"] >= ENOUGH
    assert counted["refused"] > ENOUGH / 2 and counted["heard"] > ENOUGH / 4, counted


# -- updates --------------------------------------------------------------------------------------------------------


def test_updates(make_config: Make, tmp_path: Path) -> None:
    arms = [
        make_config(
            {**SETTINGS, "mode": "update", "local": {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": MOST}, **arm}
        )
        for arm in (
            {"defense": {"name": "none"}, "strategy": {"name": "fedavg"}},
            {"defense": {"name": "none"}, "strategy": {"name": "fedmedian"}},
            {"defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}},
        )
    ]
    data, start = trained(arms[0], tmp_path)
    first = GlobalModel(arms[0], data.images, data.split, start, Placement())
    before = {name: array.numpy() for name, array in records_of(first).items()}
    counted: Counter[str] = Counter()

    def honest_updates(request: Message) -> Any:
        asked = read_request(request)
        return update_reply(
            asked.round, [ClientUpdate(c, moved(c, asked.round), 1 + c % MOST, 0.1) for c in asked.clients]
        )

    def moved(client: int, round: int) -> ArrayRecord:
        rng = np.random.default_rng((client, round))
        noisy = {n: a + 0.01 * rng.standard_normal(a.shape).astype(np.float32) for n, a in before.items()}
        return ArrayRecord({name: Array(np.asarray(array, np.float32)) for name, array in noisy.items()})

    def session(config: RunConfig, answers: Any) -> tuple[dict[str, Tensor], list[RoundReport]]:
        server = copy.deepcopy(first)
        nodes = Nodes(WireGrid(NODES, answers), config, "")
        nodes.connect()
        reports: list[RoundReport] = []
        guard, expected = UpdateGuard(), expected_update(server, MOST)
        roomy = LimitsConfig(max_message_bytes=2**26)  # what is valid of a message with more in it is used
        clients = ClientGrid(WireGrid(NODES, answers), nodes, InMessage(), server, expected, roomy, guard.admit)
        session = UpdateSession(config, clients, server, guard, lambda round: "clean", reports.append)
        with silent():
            session.run(build_strategy(config, server, start.snapshots, session.judged, session.settled))
        return server.model.state_dict(), reports

    @THOROUGH
    @given(st.sampled_from(arms), TRICKS)
    def nothing_happens(config: RunConfig, tricks: Tricks) -> None:
        answers = Hostile(honest_updates, tricks)
        final, reports = session(config, answers)
        heard: dict[int, set[int]] = {round: set() for round in range(ROUNDS)}
        kept: dict[tuple[int, int], list[bytes]] = {}
        for (round, node), (request, mail) in answers.mail.items():
            reply = the_reply(mail, request)
            values = header(reply, round)
            if reply is None or values is None:
                continue
            good = [client for client in NODES[node] if valid_update(reply, values, client, before, MOST)]
            heard[round] |= set(good)
            if len(good) == len(NODES[node]):
                kept[round, node] = [reply.SerializeToString()]
            elif good:  # only what is valid of it
                rest = [c for c in NODES[node] if c not in good]
                for index in reversed(range(len(reply.content.items))):
                    if reply.content.items[index].key in {f"update.{client}" for client in rest}:
                        del reply.content.items[index]
                kept[round, node] = [reply.SerializeToString()]

        def only_valid(node: int, request: Message) -> list[bytes]:
            return kept.get((read_request(request).round, node), [])

        reference, _ = session(config, only_valid)
        assert bits(final) == bits(reference)
        for report in reports:
            assert set(report.clients.tolist()) == heard[report.round]
            refused = Counter(r.client for r in report.rejections)
            assert set(refused) >= set(range(CLIENTS)) - heard[report.round] and set(refused.values()) <= {1}
            assert good_reasons(report.rejections)
            counted["refused"] += CLIENTS - len(heard[report.round])
            counted["heard"] += len(heard[report.round])
        assert len(reports) == ROUNDS
        counted["changed"] += answers.changed

    nothing_happens()
    assert counted["changed"] >= ENOUGH
    assert counted["refused"] > ENOUGH / 2 and counted["heard"] > ENOUGH / 4, counted
