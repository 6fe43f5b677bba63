"""Server and clients compute with numbers below 1e-38 as 0: a client cannot make them slow by sending such weights."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedmd.config import RunConfig
from fedmd.flower.client import node_training, simulated
from fedmd.runs.compose import compose
from fedmd.types import RoundReport
from tests.runs.test_damage import SMALL, federate

UPDATE = ["mode=update", "defense=none", "local.samples=8", "local.epochs=1"]


def tiny() -> float:
    return float((torch.tensor([1e-40]) * 1).item())


@pytest.mark.parametrize("mode", [[], UPDATE], ids=["stream", "update"])
def test_neither_side_computes_with_denormals(mode: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[float]] = {"server": set(), "client": set()}
    train = simulated.train_client

    def training(*arguments: Any, **more: Any) -> None:
        seen["client"].add(tiny())
        train(*arguments, **more)

    def observe(config: RunConfig, report: RoundReport) -> None:
        seen["server"].add(tiny())

    monkeypatch.setattr(simulated, "train_client", training)
    settings = [*SMALL, *mode, f"hydra.run.dir={tmp_path}", f"runtime.cache_dir={tmp_path}"]
    federate(compose(settings).config, tmp_path, observe, resume=False)
    assert seen == {"server": {0.0}, "client": {0.0} if mode else set()}
    assert tiny() > 0


def test_a_node_of_its_own_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def no_samples(*_: object) -> None:
        seen.append(tiny())
        raise ValueError("enough")

    monkeypatch.setattr(node_training, "_own_samples", no_samples)
    node, config, request = (type("Some", (), {})() for _ in range(3))
    node.max_epochs, request.model, config.local = 9, object(), type("Local", (), {"epochs": 1})()
    with pytest.raises(ValueError, match="enough"):
        node_training.own_update(node, request, config, 0)
    assert seen == [0.0] and tiny() > 0
