"""What makes a run's numbers worth less than they look is said once, in the terminal and in the report."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from fedmd.config import RunConfig
from fedmd.data.clients import ClientStreams
from fedmd.data.federated import FederatedData
from fedmd.data.split import Split
from fedmd.report.html.write import write_report
from fedmd.runs.cell import Watcher
from fedmd.runs.compose import compose
from fedmd.runs.doubts import chance_level, of_the_results, of_the_settings
from fedmd.runs.launch import launch
from fedmd.types import ImageSet, Json


def data(config: RunConfig, *labels: int, classes: int, outnumber: bool = False) -> FederatedData:
    """Data of which only labels are looked at."""
    images = ImageSet(np.zeros((len(labels), 1, 1, 1), np.uint8), np.array(labels, np.int64), classes)
    nothing = np.zeros(0, np.int64)
    streams = cast(ClientStreams, SimpleNamespace(outnumber_images=outnumber))
    return FederatedData(config, images, Split(*[nothing] * 4, stream=np.arange(3)), streams)


def test_of_the_settings() -> None:
    config = compose(["federation.clients=4", "attack.fraction=0.1"]).config
    (sentence,) = of_the_settings(data(config, 0, 1, 2, classes=3))
    assert sentence.startswith("attack.fraction=0.1 of 4 clients rounds to no attacker") and "=0.25" in sentence
    honest = compose(["attack=none"]).config
    assert of_the_settings(data(honest, 0, 1, 2, classes=3)) == []
    assert "fewer than two classes" in of_the_settings(data(honest, 0, 0, classes=1))[0]
    (gaps,) = of_the_settings(data(honest, 0, 3, classes=4))
    assert "class 1, 2" in gaps and "4 outputs" in gaps
    (crowd,) = of_the_settings(data(honest, 0, 1, classes=2, outnumber=True))
    assert "10 clients outnumber the 3 images" in crowd


def summary(burn_in: float = 0.9, auroc: float | None = 0.8, judges: bool = True) -> Json:
    return {
        "accuracy": {"burn_in": burn_in},
        "detection": {"detector": {"sample": {"auroc": auroc}}, "flagged": {"tpr": 0.02, "fpr": 0.1}},
        "scores": {"judges": judges},
    }


def test_of_the_results() -> None:
    labels = np.arange(100) % 10
    assert chance_level(labels) == pytest.approx(0.1 + 2 * np.sqrt(0.1 * 0.9 / 100))
    assert of_the_results(summary(), labels, [0.3, None]) == []
    assert "no better than chance (16.0 %)" in of_the_results(summary(burn_in=0.12), labels, None)[0]
    assert "threshold is none in every round" in of_the_results(summary(), labels, [None, None])[0]
    assert of_the_results(summary(auroc=0.41), labels, None) == [
        "the defence's score ranks most poison below what is clean (AUROC 0.41); it flags 2 % of the poison and 10 % "
        "of the rest"
    ]
    assert of_the_results(summary(auroc=0.41, judges=False), labels, None) == []  # nobody goes by it


def test_a_run_says_it_once_and_its_report_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten trusted samples cannot hold a promise of 5 %; a tenth of four clients is nobody; both, in two runs."""
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    small = ["experiment=smoke", "data.splits.trusted=10", "attack.fraction=0.1"]
    small += ["defense.stopping=per_sample", "threshold.fpr=0.05"]
    runs = [compose([*small, "runtime.engine=inline", f"hydra.run.dir={tmp_path}/{i}", f"seed={i}"]) for i in (0, 1)]
    with caplog.at_level(logging.WARNING):
        launch(runs, Watcher())
    for words in ("rounds to no attacker", "threshold is none in every round"):
        assert sum(words in record.getMessage() for record in caplog.records) == 1
        assert f"{words}" in (page := write_report(tmp_path / "0").read_text()) and "Mind:" in page
        assert "(2 of 2 runs)" in write_report(tmp_path).read_text()
