"""The real ClientApp with its mod, called as Flower calls it, but in this process and over a fake wire."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

from fedmd.attacks.schedule import malicious_clients
from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.flower.client.app import app
from fedmd.flower.wire.header import INFO, info_request, read_info
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage, Published
from fedmd.flower.wire.samples import STREAM, ExpectedBatch
from fedmd.models import model_for
from fedmd.registry import ATTACKS
from fedmd.types import StreamBatch
from tests.flower.wire.examples import asked, read_round
from tests.inline import over_the_wire

Make = Callable[..., RunConfig]
ATTACK = {"attack": {"name": "accumulative", "fraction": 0.4}, "model": {"name": "cnn", "width": 2}}
EXPECTED = ExpectedBatch((1, 8, 8), 10, 4)
CLEAN, ACCUMULATIVE, TRIGGER = 1, 2, 4


def context(place: int, nodes: int) -> Context:
    return Context(7, 1000 + place, {"partition-id": place, "num-partitions": nodes}, RecordDict(), {})


def call(content: RecordDict, kind: str, place: int = 0, nodes: int = 1) -> Message:
    request = over_the_wire(Message(content, 1, kind))
    return over_the_wire(app(request, context(place, nodes)))


def ask(config: RunConfig, round: int, exchange: Exchange) -> dict[int, StreamBatch]:
    """Everybody's batch of `round`, from one node that stands for all."""
    data = load_federated_data(config)
    clients = range(config.federation.clients)
    published = exchange.publish(round, model_for(config.model, data.images, 3))
    content = asked(config.to_json(), round, clients, exchange=exchange.folder, **vars(published))
    batches, rejections = read_round(call(content, STREAM), round, clients, EXPECTED)
    assert rejections == []
    return {batch.client: batch for batch in batches}


@pytest.mark.parametrize(("clients", "wanted", "started"), [(5, 5, 5), (5, 2, 2), (5, 2, 7), (6, 1, 1), (5, 5, 2)])
def test_the_nodes_share_all_clients_out(make_config: Make, clients: int, wanted: int, started: int) -> None:
    config = make_config({"federation": {"clients": clients, "nodes": wanted}})
    claims = []
    for place in range(started):
        reply = call(info_request(config.to_json()), INFO, place, started)
        claims.append(read_info(reply, clients)[0])
    assert sorted(client for claim in claims for client in claim) == list(range(clients))
    assert sum(bool(claim) for claim in claims) == min(wanted, started)


def test_only_nodes_with_a_malicious_client_want_the_model(make_config: Make) -> None:
    for changes in (ATTACK, {}, {"attack": {"name": "accumulative", "fraction": 0.0}}):
        config = make_config(changes)
        pool = malicious_clients(5, config.attack.fraction, 0)
        for place in range(5):
            reply = call(info_request(config.to_json()), INFO, place, 5)
            assert read_info(reply, 5) == ((place,), place in pool)


@pytest.mark.parametrize("name", ["label_flip", "backdoor", "noise"])
def test_attacks_that_look_at_no_model_are_sent_none(make_config: Make, name: str) -> None:
    class Nothing(InMessage):
        def publish(self, round: int, model: object) -> Published:
            return Published()

    config = make_config({**ATTACK, "attack": {"name": name, "fraction": 0.4}})
    assert not read_info(call(info_request(config.to_json()), INFO), 5)[1]
    with_model, without = (ask(config, ACCUMULATIVE, exchange) for exchange in (InMessage(), Nothing()))
    for client, batch in without.items():
        assert np.array_equal(batch.images, with_model[client].images)
        assert np.array_equal(batch.labels, with_model[client].labels)
    watching = make_config({**ATTACK, "attack": {"name": name, "fraction": 0.4, "stop_error_rise": 0.02}})
    assert read_info(call(info_request(watching.to_json()), INFO), 5)[1]


def test_honest_clients_send_their_stream_in_every_round(make_config: Make, tmp_path: Path) -> None:
    config = make_config(ATTACK)
    data, pool = load_federated_data(config), malicious_clients(5, 0.4, 0)
    for round in (CLEAN, ACCUMULATIVE, TRIGGER):
        sent = ask(config, round, ByReference(tmp_path))
        for client, batch in sent.items():
            honest = data.streams.batch(client, round)
            untouched = np.array_equal(batch.images, honest.images)
            assert untouched == (round == CLEAN or client not in pool)
            assert np.array_equal(batch.labels, honest.labels)


@pytest.mark.parametrize("name", [p.name for p in ATTACKS.own() if "stream" in p.modes and p.phases])
def test_fraction_zero_sends_the_same_bytes_as_no_attack(make_config: Make, tmp_path: Path, name: str) -> None:
    for round in (CLEAN, ACCUMULATIVE, TRIGGER):
        sent = [
            ask(make_config({"attack": attack}), round, ByReference(tmp_path))
            for attack in ({"name": "none"}, {"name": name, "fraction": 0.0})
        ]
        for client in range(5):
            assert np.array_equal(sent[0][client].images, sent[1][client].images)
            assert np.array_equal(sent[0][client].labels, sent[1][client].labels)


def test_poison_does_not_depend_on_how_the_model_came(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By reference with a shared folder, or in the message to a machine of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = make_config({**ATTACK, "federation": {"clients": 5, "nodes": 1}})
    (tmp_path / "shared").mkdir()
    exchanges: list[Exchange] = [ByReference(tmp_path / "shared"), InMessage()]
    for round in (ACCUMULATIVE, ACCUMULATIVE + 1, TRIGGER):
        here, there = (ask(config, round, exchange) for exchange in exchanges)
        for client in range(5):
            assert np.array_equal(here[client].images, there[client].images)


def test_seconds_of_crafting_are_booked(make_config: Make, tmp_path: Path) -> None:
    from fedmd.attacks.shared_cache import SharedCache

    config: Any = make_config(ATTACK)
    for round in (CLEAN, ACCUMULATIVE):
        ask(config, round, ByReference(tmp_path))
    assert SharedCache(tmp_path).seconds(CLEAN) == 0 < SharedCache(tmp_path).seconds(ACCUMULATIVE)


def test_a_request_of_another_version_is_refused(make_config: Make) -> None:
    content = info_request(make_config().to_json())
    content.config_records["fedmd"]["protocol"] = 99
    with pytest.raises(ValueError, match="server and client differ in version"):
        call(content, INFO)
