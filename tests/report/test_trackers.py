"""Every tracker against its real library, offline: settings, curves, the summary's numbers, files."""

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmd.report.monitoring.trackers import TRACKERS, missing, numbers
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.types import RoundReport, Verdicts


@pytest.fixture
def told(tmp_path: Path) -> Callable[[str], Path]:
    """A run of two rounds, told to the tracker of a name; its folder."""

    def tell(name: str) -> Path:
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "report.html").write_text("<p>what came out</p>")
        tracker = TRACKERS[name](folder)
        tracker.begin("run", {"attack.fraction": 0.2, "defense.name": "dsc"})
        for round, accuracy in enumerate([0.5, 0.75]):
            verdicts = Verdicts(np.ones(3), np.ones(3), np.zeros(3, np.int64), np.zeros(3, np.int64), 0.4)
            tracker.record(report(round, accuracy, verdicts))
        tracker.finish({"accuracy.final": 0.75}, [folder / "report.html"])
        return folder

    return tell


def report(round: int, accuracy: float, verdicts: Verdicts) -> RoundReport:
    clients = np.zeros(3, np.int64)
    return RoundReport(
        round=round, phase="clean", accuracy=accuracy, loss=0.1, verdicts=verdicts, clients=clients,
        index=np.arange(3), labels=clients, rejections=(), bytes_received=10,
    )  # fmt: skip


def test_csv(told: Callable[[str], Path]) -> None:
    with (told("csv") / "curves.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["round"], row["accuracy"], row["discrepancy/mean"]) for row in rows] == [
        ("0", "0.5", "1.0"),
        ("1", "0.75", "1.0"),
    ]


def test_csv_of_a_run_that_goes_on(told: Callable[[str], Path]) -> None:
    """What a killed server had written after the checkpoint is replaced."""
    folder = told("csv")
    again = TRACKERS["csv"](folder)
    again.begin("run", {})
    again.record(report(1, 0.9, Verdicts(np.ones(3), np.ones(3), np.zeros(3, np.int64), np.zeros(3, np.int64), 0.4)))
    with (folder / "curves.csv").open() as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.5", "0.9"]


def test_mlflow(told: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow: Any = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path}/mlruns")
    told("mlflow")
    (run,) = mlflow.MlflowClient().search_runs([mlflow.get_experiment_by_name("fedmd").experiment_id])
    assert run.data.params == {"attack.fraction": "0.2", "defense.name": "dsc"}
    assert run.data.metrics["summary.accuracy.final"] == run.data.metrics["accuracy"] == 0.75
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "accuracy")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (1, 0.75)]
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)] == ["report.html"]
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_wandb(told: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    (kept,) = (told("wandb") / "wandb").glob("offline-run-*/run-*.wandb")  # nothing went over the network
    expected = (b"attack.fraction", b"accuracy.final", b"report.html")
    end = time.monotonic() + 30  # wandb's own process may still be writing
    while not all(words in kept.read_bytes() for words in expected) and time.monotonic() < end:
        time.sleep(0.1)
    assert [words for words in expected if words not in kept.read_bytes()] == []


def test_numbers_and_missing() -> None:
    summary = {"accuracy": {"final": 0.5, "x": None}, "rounds": 4, "config": {"seed": 0}, "warnings": []}
    assert numbers(summary) == {"accuracy.final": 0.5, "rounds": 4.0}
    assert missing(["csv"]) is None and missing(["csv", "no_such_library"]) == "no_such_library"


def test_a_run_is_tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmd.flower.client.app import app

    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    said = [
        "experiment=smoke",
        "training.burn_in.epochs=1",
        "tracking=[csv,tensorboard]",
        f"hydra.run.dir={tmp_path}/run",
    ]
    config = compose(said).config
    with server_identity():
        serve(InlineGrid(app, 4), config, tmp_path / "run", lambda config, report: None)
    with (tmp_path / "run" / "curves.csv").open() as file:
        assert len(list(csv.DictReader(file))) == config.stream.rounds
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert "fedmd" in (tmp_path / "run" / "report.html").read_text()
    assert config.decisive() == compose(said[:2]).config.decisive()
