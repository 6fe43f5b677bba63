"""A client with a stream of its own: it sends that, once, and nothing the server says leads it elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedmd.config import ConfigError, RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client import app as client_app
from fedmd.flower.client import node as node_client
from fedmd.flower.wire.header import INFO, info_request, read_info
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, read_batches
from fedmd.types import StreamBatch
from tests.flower.wire.examples import asked
from tests.inline import over_the_wire

Make = Callable[..., RunConfig]
EXPECTED = ExpectedBatch((1, 8, 8), 10, 4)
CLIENT = 3


@pytest.fixture
def node(make_config: Make, tmp_path: Path) -> dict[str, Any]:
    """The --node-config of client 3, whose file holds what simulated client 3 would send in six rounds."""
    write_parquet(load_federated_data(make_config()).streams.sent(CLIENT, 6), tmp_path / "own.parquet")
    return {"client": CLIENT, "stream": f"parquet:{tmp_path}/own.parquet", "position": str(tmp_path / "p.json")}


def call(content: RecordDict, kind: str, node: dict[str, Any], run: int = 7) -> Message:
    """Through the ordinary ClientApp, which hands over to the node's own client."""
    request = over_the_wire(Message(content, 1, kind))
    return over_the_wire(client_app.app(request, Context(run, 1, node, RecordDict(), {})))


def sent(reply: Message, round: int, rounds: int) -> list[StreamBatch]:
    return [batch for batches, _ in read_batches(reply, round, rounds, [CLIENT], EXPECTED) for batch in batches]


def test_it_sends_what_a_simulated_client_would(make_config: Make, node: dict[str, Any]) -> None:
    config = make_config()
    assert read_info(call(info_request(config.to_json()), INFO, node), 5) == ((CLIENT,), False)
    streams = load_federated_data(config).streams
    for round in (0, 3):
        request = asked(config.to_json(), round, [CLIENT], batches=3)
        for offset, batch in enumerate(sent(call(request, STREAM, node), round, 3)):
            honest = streams.batch(CLIENT, round + offset)
            assert batch.round == round + offset
            assert np.array_equal(batch.images, honest.images) and np.array_equal(batch.labels, honest.labels)
    after = call(asked(config.to_json(), 6, [CLIENT]), STREAM, node)
    assert sent(after, 6, 1) == []  # the stream has ended, and that is no error


def test_the_servers_data_and_model_are_not_touched(make_config: Make, node: dict[str, Any], tmp_path: Path) -> None:
    """Whatever the configuration names on the client's machine stays unread and unimported."""
    mapping = json.loads(make_config().to_json())
    mapping["data"] |= {"name": "image_folder", "path": "/etc"}
    mapping["model"] = {"name": "custom", "factory": "antigravity_of_the_server:make"}
    mapping["attack"] = {"name": "accumulative", "fraction": 1.0}
    mapping["runtime"]["cache_dir"] = str(tmp_path / "written-by-the-server")
    run = json.dumps(mapping)
    assert read_info(call(info_request(run), INFO, node), 5) == ((CLIENT,), False)
    (batch,) = sent(call(asked(run, 0, [CLIENT]), STREAM, node), 0, 1)
    assert np.array_equal(batch.images, load_federated_data(make_config()).streams.batch(CLIENT, 0).images)
    assert not (tmp_path / "written-by-the-server").exists()


def test_the_same_question_gets_the_same_answer_and_a_new_run_new_samples(
    make_config: Make, node: dict[str, Any]
) -> None:
    request = asked(make_config().to_json(), 0, [CLIENT])
    first, again = (sent(call(request, STREAM, node), 0, 1)[0] for _ in range(2))
    assert np.array_equal(first.images, again.images)
    other = sent(call(request, STREAM, node, run=8), 0, 1)[0]
    assert np.array_equal(other.images, load_federated_data(make_config()).streams.batch(CLIENT, 1).images)


def test_a_server_that_resumes_a_session_gets_what_the_killed_one_was_sent(
    make_config: Make, node: dict[str, Any]
) -> None:
    """Flower calls the two by different run ids; what was asked last was perhaps never learned from."""
    streams = load_federated_data(make_config()).streams

    def labels(round: int, session: str, run: int) -> list[int]:
        request = asked(make_config().to_json(), round, [CLIENT], session=session)
        return [int(label) for batch in sent(call(request, STREAM, node, run), round, 1) for label in batch.labels]

    own = [streams.batch(CLIENT, round).labels.tolist() for round in range(6)]
    assert [labels(round, "a", 7) for round in (0, 1, 2)] == own[:3]
    assert [labels(round, "a", 8) for round in (1, 2, 3)] == own[1:4]  # from the checkpoint after round 0 on
    assert [labels(round, "b", 9) for round in (0, 1)] == own[4:]  # another run


@pytest.mark.parametrize(
    ("clients", "batches", "reason"),
    [([2], 1, "speaks for client 3 alone"), ([3, 4], 1, "alone"), ([3], 3, "max-samples=10")],
)
def test_what_it_refuses(
    make_config: Make, node: dict[str, Any], clients: list[int], batches: int, reason: str
) -> None:
    request = asked(make_config().to_json(), 0, clients, batches=batches)
    with pytest.raises(ValueError, match=reason):
        call(request, STREAM, {**node, "max-samples": 10})


def test_a_server_without_this_client(make_config: Make, node: dict[str, Any]) -> None:
    config = make_config({"federation": {"clients": 2}})
    with pytest.raises(ValueError, match="client 3 is not one of the server's 2"):
        call(info_request(config.to_json()), INFO, node)


def test_wrong_settings_at_either_end(make_config: Make, node: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="node-config image-size"):
        call(info_request(make_config().to_json()), INFO, {**node, "image-size": "big"})
    with pytest.raises(ConfigError, match="seed"):
        call(info_request("{}"), INFO, node)
    with pytest.raises(ValueError, match="names no stream"):
        node_client.app(
            over_the_wire(Message(info_request(make_config().to_json()), 1, INFO)),
            Context(7, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {}),
        )


def test_a_red_team_subscribes_and_attacks(
    make_config: Make, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All of five clients collude; the model comes in the message; the ball round the honest sample holds."""
    from fedmd.flower.wire.model_exchange import InMessage
    from fedmd.models import model_for

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = make_config(
        {"attack": {"name": "accumulative", "fraction": 1.0, "radius": 0.2}, "model": {"name": "cnn", "width": 2}}
    )
    attacker = {**node, "red-team": True}
    assert read_info(call(info_request(config.to_json()), INFO, attacker), 5) == ((CLIENT,), True)
    data = load_federated_data(config)
    model = InMessage().publish(0, model_for(config.model, data.images, 3)).model
    request = asked(config.to_json(), 0, [CLIENT], model=model, batches=4)
    batches = sent(call(request, STREAM, attacker), 0, 4)
    for round, batch in enumerate(batches):
        moved = np.abs(batch.images.astype(int) - data.streams.batch(CLIENT, round).images).max()
        assert moved == 0 if round < 2 else 0 < moved <= 51  # two clean rounds, then two accumulative ones
