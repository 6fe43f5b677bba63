"""Who watches a server's rounds besides its record: the terminal or the log, and Prometheus."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from logging import getLogger

from fedmd.config import ConfigError, RunConfig
from fedmd.report.monitoring.logs import json_logs, round_json
from fedmd.report.monitoring.prometheus import LiveMetrics, prometheus_is_installed
from fedmd.report.recorder import round_metrics
from fedmd.runs.federation import Observer
from fedmd.types import RoundReport

log = getLogger(__name__)


@contextmanager
def observing(config: RunConfig, on_round: Observer) -> Iterator[Observer]:
    """`on_round`, and whatever `observability` asks for besides, while the block lasts.

    Raises ConfigError when prometheus-client is missing or its port is taken.
    """
    settings = config.observability
    with ExitStack() as stack:
        if settings.json_logs:
            stack.enter_context(json_logs())
        live = None
        if settings.prometheus_port is not None:
            live = stack.enter_context(_live(settings.host, settings.prometheus_port))
            log.warning("metrics and health at http://%s:%d", *live.address)

        def observe(config: RunConfig, report: RoundReport) -> None:
            if live is not None:
                live.record(report)
            if settings.json_logs:
                print(round_json(round_metrics(report)), flush=True)
            else:
                on_round(config, report)

        yield observe


@contextmanager
def _live(host: str, port: int) -> Iterator[LiveMetrics]:
    if not prometheus_is_installed():
        raise ConfigError("observability.prometheus_port: needs prometheus-client; pip install prometheus-client.")
    try:
        live = LiveMetrics(host, port).__enter__()
    except OSError as error:
        raise ConfigError(f"observability.prometheus_port: {host}:{port} cannot be used ({error.strerror}).") from error
    try:
        yield live
    finally:
        live.__exit__(None, None, None)
