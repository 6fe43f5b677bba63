"""Several rounds in one reply, bounds on replies, and who may answer for whom."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client.app import app
from fedmd.flower.server.identity import fingerprint, read_register
from fedmd.flower.wire.header import INFO
from fedmd.flower.wire.samples import STREAM
from fedmd.rounds.gate import Gate
from fedmd.rounds.loop import run_rounds
from fedmd.rounds.records import Collected
from fedmd.rounds.stream import StreamServer
from fedmd.training.setup import set_up
from fedmd.types import Action, StreamBatch, Verdicts
from tests.flower.federation import sample_collector
from tests.inline import Inline, app_node, simulated_nodes

Make = Callable[..., RunConfig]
MODEL = nn.Linear(2, 2)


def kinds(grid: Inline) -> list[str]:
    return [request.metadata.message_type for request in grid.requests]


def all_rounds(grid: Inline, config: RunConfig) -> list[Collected[StreamBatch]]:
    collect = sample_collector(grid, config)
    return [collect(round, sample_clients(config, round), MODEL) for round in range(config.stream.rounds)]


@pytest.mark.parametrize("per_reply", [2, 4, 6, 100])
def test_fewer_round_trips_bring_the_same_batches(make_config: Make, per_reply: int) -> None:
    def run(batches_per_reply: int) -> tuple[list[Collected], int]:
        grid = Inline(simulated_nodes(app, 2))
        settings = {"clients": 5, "nodes": 2, "batches_per_reply": batches_per_reply}
        return all_rounds(grid, make_config({"federation": settings})), kinds(grid).count(STREAM)

    one, many = run(1), run(per_reply)
    assert (one[1], many[1]) == (12, 2 * -(-6 // per_reply))
    for each, together in zip(one[0], many[0], strict=True):
        assert [batch.client for batch in together.messages] == [0, 1, 2, 3, 4]
        for expected, got in zip(each.messages, together.messages, strict=True):
            assert (got.client, got.round) == (expected.client, expected.round)
            assert np.array_equal(got.images, expected.images) and np.array_equal(got.labels, expected.labels)
    assert sum(c.bytes_received for c in many[0]) == pytest.approx(sum(c.bytes_received for c in one[0]), rel=0.05)


def test_the_clients_of_one_reply_are_drawn_once(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 5, "clients_per_round": 2, "batches_per_reply": 3}})
    drawn = [sample_clients(config, round) for round in range(12)]
    assert [drawn[round] == drawn[round - round % 3] for round in range(12)] == [True] * 12
    assert len(set(drawn)) > 1


def test_nodes_with_streams_of_their_own_look_like_simulated_ones(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"federation": {"clients": 2, "batches_per_reply": 3}})
    nodes = {}
    for client in range(2):
        write_parquet(load_federated_data(config).streams.sent(client, 6), tmp_path / f"{client}.parquet")
        stream = f"parquet:{tmp_path}/{client}.parquet"
        own = {"client": client, "stream": stream, "position": str(tmp_path / f"{client}.json")}
        nodes[client + 50] = app_node(app, client + 50, own)
    deployed, simulated = all_rounds(Inline(nodes), config), all_rounds(Inline(simulated_nodes(app, 2)), config)
    for there, here in zip(deployed, simulated, strict=True):
        assert there.rejections == here.rejections == ()
        for mine, other in zip(there.messages, here.messages, strict=True):
            assert np.array_equal(mine.images, other.images) and np.array_equal(mine.labels, other.labels)


def test_deployed_verdicts_on_a_recorded_stream_are_the_simulated_ones(make_config: Make, tmp_path: Path) -> None:
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
        own = {"client": client, "stream": stream, "position": str(tmp_path / f"{client}.json")}
        nodes[client + 50] = app_node(app, client + 50, own)
    here = verdicts_of(Inline(simulated_nodes(app, 2)), simulation)
    there = verdicts_of(Inline(nodes), deployment)
    for mine, theirs in zip(here, there, strict=True):
        assert mine.threshold == theirs.threshold
        for name in ("before", "after", "steps", "actions"):
            assert np.array_equal(getattr(mine, name), getattr(theirs, name))
    assert any((verdicts.actions == Action.CORRECTED).any() for verdicts in here)


def verdicts_of(grid: Inline, config: RunConfig) -> list[Verdicts]:
    server = StreamServer(set_up(config))
    collect, gate = sample_collector(grid, config), Gate(config.quarantine, server)
    results = run_rounds(config, server, collect, gate, lambda round: "clean")
    return [result.report.verdicts for result in results]


def test_a_message_above_the_limit(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 3, "nodes": 2}, "limits": {"max_message_bytes": 1000}})
    collected = all_rounds(Inline(simulated_nodes(app, 2)), config)[0]
    assert [batch.client for batch in collected.messages] == [1]  # the other node answers for two clients
    assert {rejection.client for rejection in collected.rejections} == {0, 2}
    assert all("more than limits.max_message_bytes=1000" in rejection.reason for rejection in collected.rejections)


def test_too_few_clients_teach_nothing(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 3, "nodes": 3}, "limits": {"min_clients": 3}})
    grid = Inline(simulated_nodes(app, 3))
    collect = sample_collector(grid, config)
    assert len(collect(0, (0, 1, 2), MODEL).messages) == 3
    collected = collect(1, (0, 2), MODEL)
    assert collected.messages == ()
    assert [rejection.client for rejection in collected.rejections] == [0, 2]
    assert "fewer than limits.min_clients=3" in collected.rejections[0].reason


def test_samples_above_the_limit(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 1}, "limits": {"max_samples": 3}})
    assert "1 to 3 samples, not 4" in all_rounds(Inline(simulated_nodes(app, 1)), config)[0].rejections[0].reason


def test_a_node_that_comes_later_is_asked_then(make_config: Make) -> None:
    config = make_config({"federation": {"clients": 2, "round_timeout_s": 0.3}})
    grid = Inline(simulated_nodes(app, 2))
    late = grid.nodes.pop(101)
    collect = sample_collector(grid, config)
    assert [batch.client for batch in collect(0, (0, 1), MODEL).messages] == [0]
    grid.nodes[101] = late
    assert [batch.client for batch in collect(1, (0, 1), MODEL).messages] == [0, 1]
    collect(2, (0, 1), MODEL)
    assert kinds(grid).count(INFO) == 2


# -- keys ---------------------------------------------------------------------------------------------------------


def public_key() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def test_a_key_speaks_for_its_own_client_alone(make_config: Make, tmp_path: Path) -> None:
    """Client 0's node is right; client 1's claims with client 2's key; client 2's node has no key."""
    grid = Inline(simulated_nodes(app, 3))
    grid.keys = {100: public_key(), 101: public_key()}
    register = {
        fingerprint(grid.keys[100]): {"name": "a", "clients": [0]},
        fingerprint(grid.keys[101]): {"name": "b", "clients": [2]},
    }
    (tmp_path / "register.json").write_text(json.dumps(register))
    config = make_config({"federation": {"clients": 3, "register_file": str(tmp_path / "register.json")}})
    collect = sample_collector(grid, config)
    collected = collect(0, (0, 1, 2), MODEL)
    assert [batch.client for batch in collected.messages] == [0]
    assert [rejection.reason for rejection in collected.rejections] == ["no node answers for it"] * 2
    theirs, nobodys = sorted(collected.refused_nodes, key=lambda refused: refused.reason)
    assert theirs.key == fingerprint(grid.keys[101]) and theirs.reason.endswith("may not speak for clients [1]")
    assert nobodys.key is None and "(none) may not speak for clients [2]" in nobodys.reason
    assert collect(1, (0, 1, 2), MODEL).refused_nodes == ()  # they are told of once


def test_without_a_register_the_first_come_is_served(make_config: Make) -> None:
    assert (
        len(all_rounds(Inline(simulated_nodes(app, 3)), make_config({"federation": {"clients": 3}}))[0].messages) == 3
    )


@pytest.mark.parametrize("text", ["", "[]", '{"SHA256:x": {}}', '{"SHA256:x": {"clients": ["one"]}}'])
def test_a_register_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "register.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^federation\.register_file: "):
        read_register(str(tmp_path / "register.json"))
