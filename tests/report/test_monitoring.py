"""Who watches a run: Prometheus by its own parser, TensorBoard by its own reader, logs, the terminal."""

import json
import logging
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedmd.config import ConfigError
from fedmd.report.monitoring.logs import json_logs, round_json, round_line
from fedmd.report.monitoring.prometheus import LiveMetrics
from fedmd.report.monitoring.tensorboard import EventWriter, round_scalars
from fedmd.report.recorder import round_metrics
from fedmd.runs import simulation
from fedmd.types import Rejection, RoundReport, Verdicts


def report(round: int, accuracy: float | None = 0.75) -> RoundReport:
    """Four samples: accepted, corrected, corrected, rejected."""
    before = np.array([0.1, 0.2, 0.3, np.nan])
    verdicts = Verdicts(before, before, np.array([0, 1, 2, 0]), np.array([0, 1, 1, 2]), 0.15)
    ids = np.zeros(4, np.int64)
    refused = (Rejection(1, "late"), Rejection(2, "bytes"))
    trusted = None if accuracy is None else accuracy - 0.25
    watched = {"step": 0.25}
    return RoundReport(
        round, "clean", accuracy, 0.5, verdicts, ids, ids, ids, refused, 1000, watched, trusted_accuracy=trusted
    )


def get(live: LiveMetrics, path: str) -> str:
    host, port = live.address
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def scraped(live: LiveMetrics) -> dict[tuple[str, str], float]:
    samples = [sample for family in text_string_to_metric_families(get(live, "/metrics")) for sample in family.samples]
    return {(sample.name, ",".join(sample.labels.values())): sample.value for sample in samples}


def test_numbers_of_the_rounds() -> None:
    with LiveMetrics("127.0.0.1", 0) as live:
        live.record(report(0))
        live.record(report(1, accuracy=None))
        found = scraped(live)
    assert found["fedmd_rounds_total", ""] == 2
    assert found["fedmd_accuracy", ""] == 0.75  # the last one that was measured
    assert found["fedmd_trusted_accuracy", ""] == 0.5
    assert found["fedmd_score", "0.5"] == pytest.approx(0.2)
    assert found["fedmd_score", "1.0"] == pytest.approx(0.3)
    assert found["fedmd_threshold", ""] == 0.15
    assert [found["fedmd_samples_total", name] for name in ("accepted", "corrected", "rejected")] == [2, 4, 2]
    assert found["fedmd_refused_messages_total", ""] == 4
    assert found["fedmd_received_bytes_total", ""] == 2000
    assert (found["fedmd_stage_seconds_count", "step"], found["fedmd_stage_seconds_sum", "step"]) == (2, 0.5)


def test_health_says_how_far_the_run_is() -> None:
    with LiveMetrics("127.0.0.1", 0) as live:
        assert json.loads(get(live, "/health")) == {"status": "waiting", "round": None, "seconds_since_round": None}
        live.record(report(6))
        health = json.loads(get(live, "/health"))
        assert (health["status"], health["round"]) == ("running", 6)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(live, "/secrets")


def test_the_port_is_free_again_afterwards_and_not_shared_before() -> None:
    with LiveMetrics("127.0.0.1", 0) as live:
        address = live.address
        with pytest.raises(OSError), LiveMetrics(*address):
            pass
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://{address[0]}:{address[1]}/health", timeout=10)


def test_logs_are_a_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("flwr").handlers[:]
    with json_logs():
        logging.getLogger("fedmd.flower.server.nodes").warning("node %d said\n%s", 3, '"hello"')
        try:
            raise RuntimeError("no")
        except RuntimeError:
            logging.getLogger("flwr").exception("it failed")
    warned, failed = map(json.loads, capsys.readouterr().err.splitlines())
    assert (warned["level"], warned["logger"], warned["message"]) == (
        "warning",
        "fedmd.flower.server.nodes",
        'node 3 said\n"hello"',
    )
    assert "RuntimeError: no" in failed["exception"]
    assert logging.getLogger("flwr").handlers == before


def test_a_rounds_line_holds_its_metrics() -> None:
    line = json.loads(round_json(round_metrics(report(4))))
    assert (line["logger"], line["round"], line["accuracy"]) == ("fedmd.round", 4, 0.75)
    assert line["rejections"][0] == {"client": 1, "reason": "late"}


def test_a_taken_port_is_the_users_to_change(tmp_path: Path) -> None:
    from fedmd.config import ConfigError
    from fedmd.runs.compose import compose
    from fedmd.runs.observers import observing

    with LiveMetrics("127.0.0.1", 0) as live:
        config = compose([f"observability.prometheus_port={live.address[1]}"]).config
        with (
            pytest.raises(ConfigError, match=r"observability\.prometheus_port: 127\.0\.0\.1:\d+ cannot be used"),
            observing(config, lambda config, report: None),
        ):
            pass


NAN = float("nan")


def test_scalars_of_a_round(round_report):
    scalars = round_scalars(round_report(3, before=[0.1, 0.3], attack_success=0.25))
    assert scalars == {
        "accuracy": 0.5,
        "attack_success": 0.25,
        "loss": 1.0,
        "discrepancy/mean": pytest.approx(0.2),
        "discrepancy/threshold": 0.25,
        "share/corrected": 0.0,
        "share/rejected": 0.0,
    }


def test_another_detector_keeps_its_threshold_to_itself(round_report):
    scalars = round_scalars(round_report(3, before=[0.1, 0.3], discrepancy=[4.0, 6.0]))
    assert {name: value for name, value in scalars.items() if "/" in name and "share" not in name} == {
        "discrepancy/mean": pytest.approx(5.0),
        "detector/mean": pytest.approx(0.2),
        "detector/threshold": 0.25,
    }


def test_what_is_undefined_is_left_out(round_report):
    undefined = round_report(0, accuracy=None, loss=None, before=[NAN, NAN], threshold=None)
    assert set(round_scalars(undefined)) == {"share/corrected", "share/rejected"}


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return [(event.step, round(event.value, 3)) for event in reader.Scalars("accuracy")]


def test_events_are_on_disk_while_the_run_goes_on(tmp_path, round_report):
    pytest.importorskip("tensorboard")
    with EventWriter(tmp_path) as writer:
        writer.record(round_report(0, accuracy=0.1))
        assert events(tmp_path) == [(0, 0.1)]
        writer.record(round_report(1, accuracy=0.2))
    assert events(tmp_path) == [(0, 0.1), (1, 0.2)]


def test_starting_again_replaces_what_comes_after(tmp_path, round_report, monkeypatch):
    pytest.importorskip("tensorboard")
    for start, accuracies in ((0, [0.1, 0.2, 0.3]), (1, [0.7])):
        monkeypatch.setattr("time.time", lambda start=start: 1e9 + start)  # files sort by their second
        with EventWriter(tmp_path) as writer:
            for number, accuracy in enumerate(accuracies, start=start):
                writer.record(round_report(number, accuracy=accuracy))
    assert events(tmp_path) == [(0, 0.1), (1, 0.7)]


def test_a_missing_package_is_one_sentence_before_anything_starts(tmp_path, make_config, monkeypatch):
    monkeypatch.setattr(simulation, "tensorboard_is_installed", lambda: False)
    cell = simulation.Cell(make_config({"runtime.tensorboard": True}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^runtime.tensorboard: needs the package tensorboard; [^.]*\.$"):
        simulation.simulate([cell])
    assert not cell.folder.exists()


def test_a_round_in_a_line(round_report):
    report = round_report(3, "accumulative", accuracy=0.913, before=[0.1, 0.3], threshold=0.4)
    assert round_line(report, 24) == (
        "[  4/24] round   3  accumulative  accuracy  91.3 %  discrepancy 0.200 (threshold 0.400)  "
        "corrected   0 %  rejected   0 %  1 client(s) refused: labels out of range"
    )


def test_attack_success_stands_beside_accuracy_where_it_is_measured(round_report):
    line = round_line(round_report(3, accuracy=0.913, attack_success=0.25), 24)
    assert "accuracy  91.3 %  attack success  25.0 %  discrepancy" in line


def test_the_audit_trails_head_is_shown(round_report):
    with LiveMetrics("127.0.0.1", 0) as live:
        live.record(replace(round_report(0), audit_head=(7, "ab" * 32)))
        live.record(replace(round_report(1), audit_head=(9, "cd" * 32)))
        with urllib.request.urlopen("http://{}:{}/metrics".format(*live.address), timeout=10) as answer:
            shown = [line for line in answer.read().decode().splitlines() if line.startswith("fedmd_audit_head")]
    assert shown == [f'fedmd_audit_head_info{{hash="{"cd" * 32}",record="9"}} 1.0']
