"""Hostile replies through running simulations, one of each mode: nothing of them is learned, all are refused."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from torch import Tensor

from fedmd.audit.reader import read_live
from fedmd.config import RunConfig
from fedmd.flower.client import app as client_app
from fedmd.flower.wire.header import INFO, read_request
from fedmd.rounds.gate import open_gate
from fedmd.runs import federation, simulation
from fedmd.runs.compose import compose
from fedmd.runs.simulation import Cell, simulate
from tests.hostile.mutations import MUTATIONS, mutated
from tests.hostile.wire import refusable
from tests.inline import decoded, encoded

pytestmark = pytest.mark.timeout(600)
HONEST, CLIENTS, ROUNDS = 3, 16, 10  # 13 hostile clients x 10 rounds = 130 hostile replies in each mode
MUTE_S = 599.0  # by this round_timeout_s hostile clients know that they are to say nothing instead
COMMON = [
    "experiment=smoke",
    "attack=none",
    f"federation.clients={CLIENTS}",
    f"stream.clean_rounds={ROUNDS - 3}",
    "training.burn_in.epochs=2",
    "training.burn_in.batch_size=25",
    "runtime.device=cpu",
    "runtime.workers=1",
    "runtime.spread=clients",  # the servers stay in this process, where the fixture replaces their clients
    "runtime.progress=false",
    "runtime.evaluate_every=100",
]
MODES = {
    "stream": ["defense=dsc", "defense.beyond_mending=keep", "threshold.fpr=0.3"],
    "update": ["mode=update", "defense=md_screen", "local.samples=10"],
}


def hostile(app: ClientApp) -> ClientApp:
    """`app` with a trick on each reply of the clients from HONEST on. (Closures: workers get them by value.)"""

    def trick(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        request = read_request(message)
        if message.metadata.message_type == INFO or request.clients[0] < HONEST:
            return reply
        config = RunConfig.parse(request.run)
        if config.federation.round_timeout_s == MUTE_S:
            return Message(Error(2, "mute"), reply_to=message)
        (client,), rng = request.clients, Random(f"{request.clients[0]} {request.round}")
        while True:
            names = rng.sample(sorted(MUTATIONS), rng.choice([1, 2]))
            data = mutated(encoded(reply), names, rng.randrange(2**32))
            try:
                changed = decoded(data)
            except Exception:  # Flower would not let it out of this process
                continue
            if changed.has_error():
                return Message(changed.error, reply_to=message)
            if changed.has_content() and refusable(data, encoded(reply), request.round, client):
                return Message(changed.content, reply_to=message)

    wrapper = ClientApp(mods=[trick])

    @wrapper.query("info")
    def info(message: Message, context: Context) -> Message:
        return app(message, context)

    @wrapper.train("stream")
    def stream(message: Message, context: Context) -> Message:
        return app(message, context)

    @wrapper.train("update")
    def update(message: Message, context: Context) -> Message:
        return app(message, context)

    return wrapper


@pytest.fixture(scope="module")
def finals(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Tensor]]]:
    """Folder and final model of every mode, with hostile clients and with mute ones, on one Ray instance."""
    root = tmp_path_factory.mktemp("hostile")
    cells = {}
    for mode, settings in MODES.items():
        for name, timeout in (("hostile", 600.0), ("mute", MUTE_S)):
            folder = root / f"{mode}-{name}"
            own = [f"runtime.cache_dir={cache}", f"hydra.run.dir={folder}", f"federation.round_timeout_s={timeout}"]
            cells[folder.name] = Cell(compose([*COMMON, *settings, *own]).config, folder)
    models: dict[str, dict[str, Tensor]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "client_app", hostile(client_app.app))
        patch.setattr(federation, "open_gate", keeping(models))
        simulate(list(cells.values()))
    return {name: (cell.folder, models[name]) for name, cell in cells.items()}


def keeping(models: dict[str, dict[str, Tensor]]) -> Any:
    """`open_gate`, which also puts the model that a run ends with into `models`, by the name of its folder."""

    @contextmanager
    def kept(config: RunConfig, folder: Path, server: Any, *more: Any) -> Iterator[Any]:
        net = server.model.net
        start = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        with open_gate(config, folder, server, *more) as gate:
            yield gate
        models[folder.name] = {key: tensor.clone() for key, tensor in net.state_dict().items()}
        assert any(not torch.equal(start[key], tensor) for key, tensor in models[folder.name].items())  # it learned

    return kept


@pytest.mark.parametrize("mode", MODES)
def test_the_model_is_that_of_a_run_in_which_hostile_clients_say_nothing(finals: Any, mode: str) -> None:
    hostile, mute = finals[f"{mode}-hostile"][1], finals[f"{mode}-mute"][1]
    assert hostile.keys() == mute.keys()
    assert all(torch.equal(hostile[key], mute[key]) for key in mute)


@pytest.mark.parametrize("mode", MODES)
def test_every_hostile_reply_is_refused_with_a_reason(finals: Any, mode: str) -> None:
    rounds = [json.loads(line) for line in (finals[f"{mode}-hostile"][0] / "metrics.jsonl").read_text().splitlines()]
    assert len(rounds) == ROUNDS and ROUNDS * (CLIENTS - HONEST) >= 100
    for line in rounds:
        assert [entry["client"] for entry in line["rejections"]] == list(range(HONEST, CLIENTS))
        assert all(entry["reason"].isprintable() and 0 < len(entry["reason"]) < 500 for entry in line["rejections"])
    reasons = Counter(entry["reason"][:12] for line in rounds for entry in line["rejections"])
    assert len(reasons) >= 10, reasons
    assert not any("deadline" in reason for reason in reasons)


def test_the_trail_has_each_of_them(finals: Any) -> None:
    entries = [record.entry for record in read_live(finals["stream-hostile"][0] / "audit")]
    refused = [(e.round, e.client) for e in entries if (e.kind, e.action) == ("message", "rejected") and e.reason]
    assert refused == [(round, client) for round in range(ROUNDS) for client in range(HONEST, CLIENTS)]
