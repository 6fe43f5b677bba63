"""Ten thousand clients of whom eight are asked: a round costs what these eight cost."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedmd.attacks import trigger_batch
from fedmd.attacks.catalogue import accumulative
from fedmd.attacks.schedule import malicious_clients
from fedmd.config import FederationConfig
from fedmd.data.clients import ClientStreams, sample_clients
from fedmd.report.figures.heatmap import ROWS, heat_map_figure
from fedmd.report.files import Truth
from fedmd.report.scores import Score
from fedmd.runs.compose import compose
from fedmd.runs.simulation import Cell, simulate

CLIENTS, ASKED, BATCH = 10_000, 8, 5
MANY = [
    "data=digits", "model=cnn", "model.width=2", "data.splits.burn_in=100", "data.splits.trusted=20",
    "data.splits.attacker=20", "data.splits.test=40", "training.burn_in.epochs=1", "runtime.device=cpu",
    "runtime.engine=inline", "runtime.progress=false", f"federation.clients={CLIENTS}",
    f"federation.clients_per_round={ASKED}", f"stream.batch_size={BATCH}", "stream.clean_rounds=1",
    "stream.accumulative_rounds=2", "stream.recovery_rounds=1", "attack.fraction=0.2", "seed=3",
]  # fmt: skip
MODES = {
    "stream": ["defense=dsc", "quarantine=evidence"],
    "update": ["mode=update", "defense=discrepancy_screening", "local.samples=10", "local.batch_size=5"],
}


@pytest.mark.parametrize("mode", ["stream", pytest.param("update", marks=pytest.mark.slow)])
def test_all_phases_of_an_attack_among_ten_thousand(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sizes: list[int] = []
    streamed, fetched = ClientStreams.batch, []

    def watched(kernel: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda model, x, *rest, **options: sizes.append(len(x)) or kernel(model, x, *rest, **options)

    monkeypatch.setattr(trigger_batch, "craft_trigger", watched(trigger_batch.craft_trigger))
    monkeypatch.setattr(accumulative, "accumulative_push", watched(accumulative.accumulative_push))
    monkeypatch.setattr(
        ClientStreams, "batch", lambda self, client, round: fetched.append(client) or streamed(self, client, round)
    )
    folder = tmp_path / "run"
    config = compose([*MANY, *MODES[mode], f"hydra.run.dir={folder}", f"runtime.cache_dir={tmp_path}"]).config
    with caplog.at_level(logging.WARNING):
        simulate([Cell(config, folder)])
    assert "10000 clients outnumber the 1617 images of the streams" in caplog.text
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["phase"] for row in rows] == ["clean", "accumulative", "accumulative", "trigger", "recovery"]
    assert all(row["clients"] + len(row["rejections"]) == ASKED for row in rows)
    truth = Truth.read(folder)
    asked = {client for round in range(len(rows)) for client in sample_clients(config, round)}
    members = malicious_clients(CLIENTS, 0.2, config.seed)
    assert truth.malicious_clients == tuple(sorted(asked & set(members))) and truth.poisoned_rounds == (1, 2, 3)
    assert set(truth.malicious_clients) < set(members) and len(truth.malicious_clients) > 0
    assert (folder / "truth.json").stat().st_size < 400  # as many as were asked, whoever else there is
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["malicious_clients"] == list(truth.malicious_clients)
    assert 0 < max(sizes) <= ASKED * BATCH  # 2,000 members could send 10,000 samples
    assert len(fetched) <= 3 * ASKED * len(rows)


def test_a_simulation_has_as_many_nodes_as_the_machine_has_use_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    found = {
        (clients, nodes): FederationConfig(clients=clients, nodes=nodes).simulated_nodes
        for clients, nodes in ((10, None), (128, None), (10_000, None), (10_000, 500), (10, 2))
    }
    assert list(found.values()) == [10, 128, 128, 500, 2]
    assert FederationConfig(clients=10_000).node_count == 10_000  # nobody knows what real nodes there are


def test_a_heat_map_of_ten_thousand_clients_fits_on_a_page() -> None:
    clients = np.arange(CLIENTS)
    verdicts = pd.DataFrame({"client": clients, "round": 0, "phase": "clean", "before": clients / CLIENTS})
    figure = heat_map_figure(verdicts, Truth(tuple(range(0, CLIENTS, 5)), ()), Score("x", "X", "nats"))
    (image,) = figure.axes[0].images
    assert image.get_array().shape == (ROWS, 1)
    assert figure.axes[0].get_ylabel() == f"Client (▲ malicious), {ROWS} of {CLIENTS}"
    assert not figure.axes[0].get_yticklabels()
    (line,) = [line for line in figure.axes[0].lines]
    assert line.get_ydata()[0] == pytest.approx(ROWS / 5, abs=1)  # malicious clients keep their share
