"""Several rounds in one reply, bounds on replies, and who may answer for whom."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fedmd.flower.server.streaming import FlowerCollector
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.session import Collected, run_session
from flwr.app import Context, Message, RecordDict
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client import app as client_app
from fedmd.flower.server.identity import fingerprint, read_register
from fedmd.flower.wire import INFO, STREAM, Expected
from fedmd.flower.wire.model_exchange import InMessage
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import Action, Verdicts

Make = Callable[..., RunConfig]
EXPECTED = Expected((1, 8, 8), 10, 4)
MODEL = nn.Linear(2, 2)


class AppGrid:
    """Real ClientApps behind a wire: `nodes` maps node id to node_config, `keys` to public key."""

    def __init__(self, wire: SimpleNamespace, nodes: dict[int, dict[str, Any]]) -> None:
        self.nodes, self._wire, self._replies = nodes, wire, list[Message]()
        self.keys: dict[int, bytes] = {}
        self.asked: list[str] = []

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def get_nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(node_id=node, public_key=self.keys.get(node, b"")) for node in self.nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"request-{len(self.asked)}"
            self.asked.append(message.metadata.message_type)
            node = message.metadata.dst_node_id
            context = Context(7, node, self.nodes[node], RecordDict(), {})
            reply = client_app.app(self._wire.over_the_wire(message), context)
            self._replies.append(self._wire.over_the_wire(reply))
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        pulled, self._replies = self._replies, []
        return pulled


def simulated(nodes: int) -> dict[int, dict[str, Any]]:
    return {100 + place: {"partition-id": place, "num-partitions": nodes} for place in range(nodes)}


def connected(grid: AppGrid, config: RunConfig) -> FlowerCollector:
    collect = FlowerCollector(grid, config, InMessage(), EXPECTED)  # type: ignore[arg-type]
    collect.connect()
    return collect


def all_rounds(grid: AppGrid, config: RunConfig) -> list[Collected]:
    collect = connected(grid, config)
    return [collect(round, sample_clients(config, round), MODEL) for round in range(config.stream.rounds)]


@pytest.mark.parametrize("per_reply", [2, 4, 6, 100])
def test_fewer_round_trips_bring_the_same_batches(wire: SimpleNamespace, make_config: Make, per_reply: int) -> None:
    def run(batches_per_reply: int) -> tuple[list[Collected], int]:
        grid = AppGrid(wire, simulated(2))
        settings = {"clients": 5, "nodes": 2, "batches_per_reply": batches_per_reply}
        return all_rounds(grid, make_config({"federation": settings})), grid.asked.count(STREAM)

    one, many = run(1), run(per_reply)
    assert (one[1], many[1]) == (12, 2 * -(-6 // per_reply))
    for each, together in zip(one[0], many[0], strict=True):
        assert [batch.client for batch in together.batches] == [0, 1, 2, 3, 4]
        for expected, got in zip(each.batches, together.batches, strict=True):
            assert (got.client, got.round) == (expected.client, expected.round)
            assert np.array_equal(got.images, expected.images) and np.array_equal(got.labels, expected.labels)
    assert sum(c.bytes_received for c in many[0]) == pytest.approx(sum(c.bytes_received for c in one[0]), rel=0.05)


def test_the_clients_of_one_reply_are_drawn_once(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 5, "clients_per_round": 2, "batches_per_reply": 3}})
    drawn = [sample_clients(config, round) for round in range(12)]
    assert [drawn[round] == drawn[round - round % 3] for round in range(12)] == [True] * 12
    assert len(set(drawn)) > 1


def test_nodes_with_streams_of_their_own_look_like_simulated_ones(
    wire: SimpleNamespace, make_config: Make, tmp_path: Path
) -> None:
    config = make_config({"federation": {"clients": 2, "batches_per_reply": 3}})
    nodes = {}
    for client in range(2):
        write_parquet(load_federated_data(config).streams.sent(client, 6), tmp_path / f"{client}.parquet")
        stream = f"parquet:{tmp_path}/{client}.parquet"
        nodes[client + 50] = {"client": client, "stream": stream, "position": str(tmp_path / f"{client}.json")}
    for there, here in zip(
        all_rounds(AppGrid(wire, nodes), config), all_rounds(AppGrid(wire, simulated(2)), config), strict=True
    ):
        assert there.rejections == here.rejections == ()
        for deployed, other in zip(there.batches, here.batches, strict=True):
            assert np.array_equal(deployed.images, other.images) and np.array_equal(deployed.labels, other.labels)


def test_deployed_verdicts_on_a_recorded_stream_are_the_simulated_ones(
    wire: SimpleNamespace, make_config: Make, tmp_path: Path
) -> None:
    """The server's whole way, screening and learning, on nodes with recorded streams and on simulated ones."""
    settings = {
        "defense": {"name": "dsc"},
        "model": {"name": "cnn", "width": 2},
        "threshold": {"name": "quantile", "fpr": 0.5},
    }
    simulation = make_config({**settings, "federation": {"clients": 2}})
    deployment = make_config({**settings, "federation": {"clients": 2, "batches_per_reply": 3}})
    nodes = {}
    for client in range(2):
        write_parquet(load_federated_data(simulation).streams.sent(client, 6), tmp_path / f"{client}.parquet")
        stream = f"parquet:{tmp_path}/{client}.parquet"
        nodes[client + 50] = {"client": client, "stream": stream, "position": str(tmp_path / f"{client}.json")}
    here = verdicts_of(AppGrid(wire, simulated(2)), simulation)
    there = verdicts_of(AppGrid(wire, nodes), deployment)
    for mine, theirs in zip(here, there, strict=True):
        assert mine.threshold == theirs.threshold
        for name in ("before", "after", "steps", "actions"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
    assert any((verdicts.actions == Action.CORRECTED).any() for verdicts in here)


def verdicts_of(grid: AppGrid, config: RunConfig) -> list[Verdicts]:
    data, placement = load_federated_data(config), Placement.of(config.runtime)
    cache = default_cache_dir(config.runtime.cache_dir)
    trained = burn_in(config, data.images, data.split, placement=placement, cache_dir=cache)
    learner = OnlineLearner(config, data.images, data.split, trained, placement)
    rounds = run_session(config, learner, connected(grid, config), lambda round: "clean")
    return [result.report.verdicts for result in rounds]


def test_a_message_above_the_limit(wire: SimpleNamespace, make_config: Make) -> None:
    config = make_config({"federation": {"clients": 3, "nodes": 2}, "limits": {"max_message_bytes": 1000}})
    collected = all_rounds(AppGrid(wire, simulated(2)), config)[0]
    assert [batch.client for batch in collected.batches] == [1]  # the other node answers for two clients
    assert {rejection.client for rejection in collected.rejections} == {0, 2}
    assert all("more than limits.max_message_bytes=1000" in rejection.reason for rejection in collected.rejections)


def test_too_few_clients_teach_nothing(wire: SimpleNamespace, make_config: Make) -> None:
    config = make_config({"federation": {"clients": 3, "nodes": 3}, "limits": {"min_clients": 3}})
    grid = AppGrid(wire, simulated(3))
    collect = connected(grid, config)
    assert len(collect(0, (0, 1, 2), MODEL).batches) == 3
    collected = collect(1, (0, 2), MODEL)
    assert collected.batches == ()
    assert [rejection.client for rejection in collected.rejections] == [0, 2]
    assert "fewer than limits.min_clients=3" in collected.rejections[0].reason


def test_samples_above_the_limit(wire: SimpleNamespace, make_config: Make) -> None:
    config = make_config({"federation": {"clients": 1}, "limits": {"max_samples": 3}})
    assert "1 to 3 samples, not 4" in all_rounds(AppGrid(wire, simulated(1)), config)[0].rejections[0].reason


def test_a_node_that_comes_later_is_asked_then(wire: SimpleNamespace, make_config: Make) -> None:
    config = make_config({"federation": {"clients": 2, "round_timeout_s": 0.3}})
    grid = AppGrid(wire, simulated(2))
    late = grid.nodes.pop(101)
    collect = connected(grid, config)
    assert [batch.client for batch in collect(0, (0, 1), MODEL).batches] == [0]
    grid.nodes[101] = late
    assert [batch.client for batch in collect(1, (0, 1), MODEL).batches] == [0, 1]
    collect(2, (0, 1), MODEL)
    assert grid.asked.count(INFO) == 2


# -- keys ---------------------------------------------------------------------------------------------------------


def public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_key_speaks_for_its_own_client_alone(wire: SimpleNamespace, make_config: Make, tmp_path: Path) -> None:
    """Client 0's node is right; client 1's claims with client 2's key; client 2's node has no key."""
    grid = AppGrid(wire, simulated(3))
    grid.keys = {100: public_key(), 101: public_key()}
    register = {
        fingerprint(grid.keys[100]): {"name": "a", "clients": [0]},
        fingerprint(grid.keys[101]): {"name": "b", "clients": [2]},
    }
    (tmp_path / "register.json").write_text(json.dumps(register))
    config = make_config({"federation": {"clients": 3, "register_file": str(tmp_path / "register.json")}})
    collect = connected(grid, config)
    collected = collect(0, (0, 1, 2), MODEL)
    assert [batch.client for batch in collected.batches] == [0]
    assert [rejection.reason for rejection in collected.rejections] == ["no node answers for it"] * 2
    theirs, nobodys = collected.strangers
    assert theirs.key == fingerprint(grid.keys[101]) and theirs.reason.endswith("may not speak for clients [1]")
    assert nobodys.key is None and "(none) may not speak for clients [2]" in nobodys.reason
    assert collect(1, (0, 1, 2), MODEL).strangers == ()  # they are told of once


def test_without_a_register_the_first_come_is_served(wire: SimpleNamespace, make_config: Make) -> None:
    assert len(all_rounds(AppGrid(wire, simulated(3)), make_config({"federation": {"clients": 3}}))[0].batches) == 3


@pytest.mark.parametrize("text", ["", "[]", '{"SHA256:x": {}}', '{"SHA256:x": {"clients": ["one"]}}'])
def test_a_register_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "register.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^federation\.register_file: "):
        read_register(str(tmp_path / "register.json"))
