"""What Prometheus would scrape from a running server, read by Prometheus's own parser."""

import json
import logging
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedmd.report.monitoring.json_logs import json_logs, round_json
from fedmd.report.monitoring.prometheus import LiveMetrics
from fedmd.report.recorder import round_metrics
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
