"""A client with data of its own trains on them: what a simulated client would send, and nothing that is not its own."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict

from fedmd.config import NodeConfig, RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.flower.client import app as client_app
from fedmd.flower.wire.header import INFO, info_request, read_info
from fedmd.flower.wire.updates import UPDATE
from fedmd.models import model_for
from fedmd.registry import resolving
from fedmd.training.local import floating, train_client
from tests.flower.wire.examples import asked, sent_updates
from tests.inline import over_the_wire

Make = Callable[..., RunConfig]
CLIENT = 3
UPDATES: dict[str, Any] = {"mode": "update", "model": {"name": "resnet_small", "width": 2}}
UPDATES |= {"local": {"epochs": 2, "batch_size": 7, "lr": 0.1, "momentum": 0.5, "samples": 20}}


@pytest.fixture
def node(make_config: Make, tmp_path: Path) -> dict[str, Any]:
    """The --node-config of client 3, whose file holds what simulated client 3 trains on."""
    write_parquet(load_federated_data(make_config(UPDATES)).local.of(CLIENT), tmp_path / "own.parquet")
    return {"client": CLIENT, "stream": f"parquet:{tmp_path}/own.parquet", "position": str(tmp_path / "p.json")}


def ask(
    config: RunConfig,
    node: dict[str, Any],
    model: torch.nn.Module,
    round: int = 4,
    clients: tuple[int, ...] = (CLIENT,),
    **more: Any,
) -> Message:
    """Through the ordinary ClientApp, which hands over to the node's own client."""
    sent = ArrayRecord(model.state_dict())
    content = asked(config.to_json(), round, clients, proximal_mu=0.3, model=sent, **{"classes": 10, **more})
    request = over_the_wire(Message(content, 1, UPDATE))
    return over_the_wire(client_app.app(request, Context(7, 1, node, RecordDict(), {})))


def net(config: RunConfig) -> torch.nn.Module:
    return model_for(config.model, load_federated_data(config).images, 5)


def test_it_sends_what_a_simulated_client_would(make_config: Make, node: dict[str, Any]) -> None:
    config = make_config(UPDATES)
    (update,) = sent_updates(ask(config, node, net(config)))
    simulated = net(config)
    own = load_federated_data(config).local.of(CLIENT)
    train_client(simulated, net(config).state_dict(), own, config, client=CLIENT, round=4, proximal_mu=0.3)
    assert (update.client, update.examples) == (CLIENT, 20) and update.seconds > 0
    sent, expected = update.arrays.to_torch_state_dict(), floating(simulated.state_dict())
    assert list(sent) == list(expected) and all(torch.equal(sent[name], expected[name]) for name in sent)


def test_the_servers_data_and_files_are_not_touched(make_config: Make, node: dict[str, Any], tmp_path: Path) -> None:
    config = make_config(UPDATES)
    elsewhere = {"data.name": "image_folder", "data.path": "/etc", "runtime.cache_dir": str(tmp_path / "written")}
    hostile = make_config({**UPDATES, **elsewhere})
    (update,) = sent_updates(ask(hostile, node, net(config)))
    (honest,) = sent_updates(ask(config, node, net(config)))
    assert all(np.array_equal(update.arrays[n].numpy(), honest.arrays[n].numpy()) for n in honest.arrays)
    assert not (tmp_path / "written").exists()
    content = asked(config.to_json(), 0, [CLIENT], model_file="/etc/passwd", classes=10)
    with pytest.raises(ValueError, match="carries no model"):
        client_app.app(over_the_wire(Message(content, 1, UPDATE)), Context(7, 1, node, RecordDict(), {}))


def test_its_owner_says_how_much(make_config: Make, node: dict[str, Any]) -> None:
    config = make_config(UPDATES)
    (update,) = sent_updates(ask(config, {**node, "max-samples": 11}, net(config)))
    assert update.examples == 11
    with pytest.raises(ValueError, match="2 epochs are more than this node's max-epochs=1"):
        ask(config, {**node, "max-epochs": 1}, net(config))


@pytest.mark.parametrize(
    ("changes", "more", "reason"),
    [
        ({}, {"clients": (2,)}, "speaks for client 3 alone"),
        ({}, {"clients": (3, 4)}, "speaks for client 3 alone"),
        ({}, {"classes": 5}, "not all within the 5 classes"),
        ({"model": {"name": "resnet_small", "width": 10**6}}, {}, "not model.name=resnet_small"),
        ({"model": {"name": "cnn", "width": 2}}, {}, "not model.name=cnn"),
        ({"model": {"name": "custom", "factory": "os:system"}}, {}, "no model-factory"),
    ],
)
def test_what_it_refuses(
    make_config: Make,
    node: dict[str, Any],
    changes: dict[str, Any],
    more: dict[str, Any],
    reason: str,
) -> None:
    with pytest.raises(ValueError, match=reason):
        ask(make_config({**UPDATES, **changes}), node, net(make_config(UPDATES)), **more)


def test_a_custom_model_is_the_node_owners(
    make_config: Make, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server names another factory; only the node's own is called."""
    module = ModuleType("of_the_owner")
    module.__dict__["linear"] = lambda channels, classes, image_size: torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(channels * image_size[0] * image_size[1], classes)
    )
    monkeypatch.setitem(sys.modules, "of_the_owner", module)
    with resolving("nothing"):
        config = make_config({**UPDATES, "model": {"name": "custom", "factory": "antigravity_of_the_server:make"}})
    start = module.__dict__["linear"](1, 10, (8, 8))
    (update,) = sent_updates(ask(config, {**node, "model-factory": "of_the_owner:linear"}, start))
    assert set(update.arrays) == {"1.weight", "1.bias"}
    assert not np.array_equal(update.arrays["1.weight"].numpy(), start.state_dict()["1.weight"].numpy())


def test_a_red_team_attacks_in_the_attacks_rounds_alone(
    make_config: Make, node: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    config = make_config({**UPDATES, "attack": {"name": "sign_flip", "fraction": 1.0}})
    assert NodeConfig.parse({**node, "red-team": True}).red_team
    attacker = {**node, "red-team": True}
    info = Message(info_request(config.to_json()), 1, INFO)
    reply = client_app.app(over_the_wire(info), Context(7, 1, attacker, RecordDict(), {}))
    assert read_info(over_the_wire(reply), 5)[0] == (CLIENT,)
    start = net(config)
    for round, flipped in ((0, False), (2, True)):  # two clean rounds, then two accumulative ones
        (honest,) = sent_updates(ask(config, node, start, round))
        (sent,) = sent_updates(ask(config, attacker, start, round))
        name = next(name for name, _ in start.named_parameters())
        origin = start.state_dict()[name].numpy()
        moved, other = (update.arrays[name].numpy() - origin for update in (honest, sent))
        assert (moved * other).sum() < 0 if flipped else np.array_equal(moved, other)
