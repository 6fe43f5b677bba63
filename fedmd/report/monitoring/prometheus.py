"""A running server's numbers over HTTP: /metrics for Prometheus, /health for whoever restarts it."""

import json
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from socketserver import ThreadingMixIn
from threading import Thread
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np

from fedmd.types import Action, RoundReport

_QUANTILES = (0.05, 0.5, 0.95, 1.0)


def prometheus_is_installed() -> bool:
    """Whether `LiveMetrics` can work."""
    return find_spec("prometheus_client") is not None


class LiveMetrics:
    """Serves what `record` was told, until the `with` block ends. `port` 0 takes any free one; `address` has it.

    The counters begin at 0 with every server process. There is no authentication: bind it to loopback, or to a network
    that only the operators' Prometheus reaches.

        with LiveMetrics("127.0.0.1", 9464) as live:
            live.record(report)

    Raises OSError when the port is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
        from prometheus_client.exposition import make_wsgi_app

        self._place = (host, port)
        self._registry = registry = CollectorRegistry()
        self._rounds = Counter("fedmd_rounds", "Rounds that have ended", registry=registry)
        self._accuracy = Gauge("fedmd_accuracy", "Share of the server's test set it gets right", registry=registry)
        self._trusted_accuracy = Gauge(
            "fedmd_trusted_accuracy", "Share of the server's trusted set it gets right", registry=registry
        )
        self._score = Gauge(
            "fedmd_score", "Quantiles of the detector's score in the last round", ["quantile"], registry=registry
        )
        self._threshold = Gauge("fedmd_threshold", "What the last round's scores were held against", registry=registry)
        self._samples = Counter("fedmd_samples", "Samples by what was done with them", ["action"], registry=registry)
        self._refused = Counter("fedmd_refused_messages", "Messages refused, missing ones included", registry=registry)
        self._quarantined = Gauge("fedmd_quarantined_clients", "Clients whose data is kept aside", registry=registry)
        self._received = Counter("fedmd_received_bytes", "Array data received", registry=registry)
        self._stage = Histogram("fedmd_stage_seconds", "Time by stage of a round", ["stage"], registry=registry)
        self._audit_head = Info("fedmd_audit_head", "The audit trail's last record and its hash", registry=registry)
        self._metrics: Callable[..., Iterable[bytes]] = make_wsgi_app(registry)
        self._last: tuple[int, float] | None = None
        self._server: WSGIServer | None = None

    def __enter__(self) -> Self:
        self._server = make_server(*self._place, self._answer, _Server, _Silent)
        Thread(target=self._server.serve_forever, name="fedmd-metrics", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        assert self._server is not None
        return self._place[0], self._server.server_port

    def record(self, report: RoundReport) -> None:
        """Count one round."""
        verdicts = report.verdicts
        self._rounds.inc()
        if report.accuracy is not None:
            self._accuracy.set(report.accuracy)
        if report.trusted_accuracy is not None:
            self._trusted_accuracy.set(report.trusted_accuracy)
        measured = verdicts.before[np.isfinite(verdicts.before)]
        for quantile in _QUANTILES:
            self._score.labels(quantile).set(np.quantile(measured, quantile) if len(measured) else np.nan)
        self._threshold.set(np.nan if verdicts.threshold is None else verdicts.threshold)
        for action in Action:
            self._samples.labels(action.name.lower()).inc(int((verdicts.actions == action).sum()))
        self._refused.inc(len(report.rejections))
        self._quarantined.set(len(report.quarantined))
        self._received.inc(report.bytes_received)
        for stage, seconds in report.wall_s.items():
            self._stage.labels(stage).observe(seconds)
        if report.audit_head is not None:
            self._audit_head.info({"record": str(report.audit_head[0]), "hash": report.audit_head[1]})
        self._last = (report.round, time.monotonic())

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        if path != "/health":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /health\n"]
        last = self._last  # the server answers, so it lives; how long a round may take only its operator knows
        health = {
            "status": "waiting" if last is None else "running",
            "round": None if last is None else last[0],
            "seconds_since_round": None if last is None else round(time.monotonic() - last[1], 3),
        }
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(health).encode() + b"\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a scrape every few seconds is no news."""
