"""Clients that end their process, on Ray: only they are refused, and the numbers are those of a run without a crash."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmd.flower.client import app as client_app
from fedmd.flower.wire.header import INFO, read_request
from fedmd.runs import simulation
from fedmd.runs.cell import Cell
from fedmd.runs.simulation import simulate
from tests.integration.conftest import composed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("clients on Ray")]
CLIENTS, KILLERS, ROUNDS = 12, (2, 7), (1, 2)
SETTINGS = [f"federation.clients={CLIENTS}", "attack.fraction=0.2"]
MODES = {"stream": [], "update": ["mode=update", "defense=md_screen", "local.samples=40", "threshold.fpr=0.05"]}


def failing(app: ClientApp, fail: Callable[[], object]) -> ClientApp:
    """`app`, but that KILLERS fail in ROUNDS. (Closures: workers get them by value.)"""
    killers, rounds, info_type = KILLERS, ROUNDS, INFO
    wrapper = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        if message.metadata.message_type != info_type:
            request = read_request(message)
            if request.round in rounds and set(request.clients) & set(killers):
                fail()
        return app(message, context)

    wrapper.query("info")(answer)
    wrapper.train("stream")(answer)
    wrapper.train("update")(answer)
    return wrapper


def run(
    app: ClientApp, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str
) -> list[dict[str, Any]]:
    monkeypatch.setattr(simulation, "client_app", app)
    config = composed(folder, cache, *SETTINGS, *overrides).config
    simulate([Cell(config, folder)])
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", MODES)
def test_innocents_are_heard_beside_clients_that_end_their_process(
    mode: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = ["runtime.engine=ray", "runtime.spread=clients", "runtime.workers=2"]
    killed = run(
        failing(client_app.app, lambda: os._exit(1)), tmp_path / "killed", cache, monkeypatch, *MODES[mode], *ray
    )

    def fail() -> None:
        raise OSError("my disk is gone")

    raised = run(
        failing(client_app.app, fail), tmp_path / "raised", cache, monkeypatch, *MODES[mode], "runtime.engine=inline"
    )
    for round, (ours, theirs) in enumerate(zip(killed, raised, strict=True)):
        assert [entry["client"] for entry in ours["rejections"]] == (list(KILLERS) if round in ROUNDS else [])
        assert all("its worker was lost" in entry["reason"] for entry in ours["rejections"])
        differing = {"rejections", "wall_s"}
        assert {k: v for k, v in ours.items() if k not in differing} == {
            k: v for k, v in theirs.items() if k not in differing
        }
