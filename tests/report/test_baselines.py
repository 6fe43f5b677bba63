"""The baseline detectors' scores on their way from a round's verdicts to the tables of run and comparison."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from fedmd.report.files import Truth, read_metrics, write_summary
from fedmd.report.html.arms_page import detector_blocks
from fedmd.report.html.content import Table
from fedmd.report.html.run_page import detection_numbers
from fedmd.report.html.write import write_report
from fedmd.report.loading import load
from fedmd.report.results import Run
from fedmd.report.statistics.comparison import ArmInfo, compare
from fedmd.report.statistics.tables import comparison_detectors_table, detectors_table, run_detectors_table
from fedmd.report.summary import summarise
from fedmd.report.table import cell_text
from fedmd.report.verdicts import read_verdicts, recorded_baselines
from fedmd.types import Drift

NAN = float("nan")
SCORES = {"lid": [1.0, 2.0, 3.0, 4.0], "confidence": [0.9, 0.1, 0.8, 0.2], "mahalanobis": [NAN] * 4}


def finished(folder, scores, defense="drop", seed=0):
    """Samples 2 and 3, client 1's, are poisoned: lid finds both, mahalanobis measures nothing."""
    truth = Truth((1,), (0,))
    truth.write(folder)
    config = {"defense": {"name": defense, "detector": scores["held"]}}
    summary = summarise(
        folder, truth=truth, burn_in_accuracy=0.5, defense_name=defense, scores=scores, n_clients=2, wall_s={},
        seed=seed, config=config, versions={},
    )  # fmt: skip
    write_summary(folder, summary)
    return summary


def test_a_column_a_detector(tmp_path, round_report, record, scores):
    folder = record(tmp_path, round_report(0, baselines=SCORES), round_report(1, before=[], baselines={}))
    assert recorded_baselines(folder) == list(SCORES)
    frame = read_verdicts(folder)
    for name, values in SCORES.items():
        np.testing.assert_array_equal(frame[name], values)
    baselines = finished(folder, scores("lid"))["detection"]["baselines"]
    assert {name: quality["auroc"] for name, quality in baselines.items()} == {
        "lid": 1.0, "confidence": 0.25 * (0 + 1 + 0 + 1), "mahalanobis": None,
    }  # fmt: skip
    assert (baselines["mahalanobis"]["n_poisoned"], baselines["lid"]["n_poisoned"]) == (0, 2)


def test_baselines_of_another_length_are_refused(tmp_path, round_report, record):
    with pytest.raises(ValueError, match="length"):
        record(tmp_path, round_report(0, baselines={"lid": [1.0]}))


def test_the_runs_table(tmp_path, round_report, record, scores):
    summary = finished(record(tmp_path, round_report(0, baselines=SCORES)), scores("lid"))
    rows = run_detectors_table(summary)
    assert [row["detector"] for row in rows] == [
        "Memorization discrepancy", "Local intrinsic dimensionality (the defence's)", "Lack of confidence",
        "Mahalanobis distance",
    ]  # fmt: skip
    assert list(rows[0])[1:] == ["AUROC", "average precision", "TPR at FPR ≤ 5 %"]
    assert [cell_text(row["AUROC"]) for row in rows] == ["1.000", "1.000", "0.500", "–"]
    undefended = {**summary, "scores": scores("lid", judges=False)}
    assert not any("defence" in row["detector"] for row in run_detectors_table(undefended))
    assert "Mahalanobis distance" in write_report(tmp_path).read_text()


def test_a_detector_that_is_no_baseline_has_a_row_too(tmp_path, round_report, record, scores):
    """A plug-in's, whose name and label nothing in report/ knows; without a label it goes by its name."""
    reports = round_report(0, discrepancy=[1.0, 2.0, 1.0, 2.0], baselines=SCORES)
    told = scores("my_score")
    summary = finished(record(tmp_path, reports), told)
    assert [row["detector"] for row in run_detectors_table(summary)][-1] == "My score (the defence's)"
    told["detectors"]["my_score"] = {"label": "How <odd> it is", "unit": "odds"}
    summary = finished(tmp_path, told)
    rows = run_detectors_table(summary)
    assert rows[-1]["detector"] == "How <odd> it is (the defence's)" and cell_text(rows[-1]["AUROC"]) == "1.000"
    page = write_report(tmp_path).read_text()
    assert "How &lt;odd&gt; it is over time" in page and "How &lt;odd&gt; it is (odds)" in page


def test_a_folder_from_before_labels_is_reportable(tmp_path, round_report, record, scores):
    """Names stand for the labels; what a factor of mode=update was called, nobody knows any more."""
    summary = finished(record(tmp_path, round_report(0, baselines=SCORES)), scores("lid"))
    del summary["scores"]
    assert [row["detector"] for row in run_detectors_table(summary)] == [
        "Discrepancy", "Lid", "Confidence", "Mahalanobis",
    ]  # fmt: skip
    write_summary(tmp_path, summary)
    assert "Lid over time" in write_report(tmp_path).read_text()
    updates = {**summary, "config": {"mode": "update", "strategy": {"name": "fedavg"}, "defense": {}}}
    write_summary(tmp_path, updates)
    assert Run.read(tmp_path).detector == "Score" and "Score over time" in write_report(tmp_path).read_text()
    comparison = compare({"a": {0: summary}}, {"a": ArmInfo("a", "x", True)}, baseline="a")
    del comparison["detectors"]
    assert list(comparison_detectors_table(comparison)[0]) == ["arm", "Discrepancy", "Lid", "Confidence", "Mahalanobis"]


def test_a_folder_from_before_baselines_is_reportable(tmp_path, round_report, record, scores):
    folder = record(tmp_path / "run", round_report(0))
    assert recorded_baselines(folder) == [] and list(pq.read_schema(folder / "verdicts.parquet").names)[-1] == "action"
    summary = finished(folder, scores())
    assert summary["detection"]["baselines"] == {} and run_detectors_table(summary) == []
    del summary["detection"]["baselines"]
    write_summary(folder, summary)
    lines = [{k: v for k, v in row.items() if k != "threshold_drift"} for row in read_metrics(folder)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "Every sample scored by every detector" not in write_report(folder).read_text()
    comparison = compare({"a": {0: summary}}, {"a": ArmInfo("a", "x", True)}, baseline="a")
    assert comparison_detectors_table(comparison) == []


def test_drift_is_recorded_and_noted(tmp_path, round_report, record, scores):
    reports = [round_report(i, drift=Drift(0.1 * i, 0.1) if i > 2 else None) for i in range(5)]
    folder = record(tmp_path, *reports)
    assert [row["threshold_drift"] for row in read_metrics(folder)][2:] == [
        None, {"rate": pytest.approx(0.3), "promised": 0.1}, {"rate": 0.4, "promised": 0.1},
    ]  # fmt: skip
    finished(folder, scores())
    note = detection_numbers(Run.read(folder))[-1].text
    assert "Threshold drift in 2 rounds from round 3 on: 30.0 to 40.0 %" in note and "promised 10.0 %" in note


def test_arms_by_detectors(tmp_path, round_report, record, scores):
    runs = {}
    for arm, seeds in (("one", (0, 1)), ("two", (0,))):
        for seed in seeds:
            confidence = [0.9, 0.1, 0.8, 0.2 if seed == 0 else 1.0]
            folder = record(tmp_path / f"{arm}{seed}", round_report(0, baselines={**SCORES, "confidence": confidence}))
            told = scores("lid" if arm == "one" else "confidence")
            runs.setdefault(arm, {})[seed] = finished(folder, told, seed=seed)
    runs["clean"] = {0: json.loads(json.dumps(runs["two"][0]))}
    for quality in (runs["clean"][0]["detection"]["sample"], *runs["clean"][0]["detection"]["baselines"].values()):
        quality["auroc"] = None
    infos = {
        "one": ArmInfo("arm 1", "one", True),
        "two": ArmInfo("arm 2", "two", True),
        "clean": ArmInfo("clean", "two", False),
    }
    rows = comparison_detectors_table(compare(runs, infos))
    assert [row["arm"] for row in rows] == ["arm 1", "arm 2"]  # nothing to detect in the third
    one = {name: cell_text(cell) for name, cell in rows[0].items()}
    assert one == {
        "arm": "arm 1", "Memorization discrepancy": "1.000 ± 0.000", "Local intrinsic dimensionality": "1.000 ± 0.000",
        "Lack of confidence": "0.625 (0.500, 0.750)", "Mahalanobis distance": "–",
    }  # fmt: skip
    (table,) = detector_blocks(load(tmp_path))  # the same folders as a sweep
    assert isinstance(table, Table) and sorted(row[3] for row in table.rows) == ["0.500", "0.625 (0.500, 0.750)"]
    assert detectors_table({}, {}) == []
