"""A run of mode=update from its first to its last round: Flower's own strategy loop, and a report after every round."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedmd.config import RunConfig
from fedmd.data.sampling import sample_clients
from fedmd.flower.client_grid import ClientGrid, records_of
from fedmd.server.global_model import GlobalModel
from fedmd.server.session import is_evaluated
from fedmd.types import Action, Phase, RoundReport, Verdicts


def run_update_session(
    config: RunConfig,
    strategy: Strategy,
    clients: ClientGrid,
    server: GlobalModel,
    phase_of: Callable[[int], Phase],
    on_report: Callable[[RoundReport], None],
) -> None:
    """Run all rounds; `on_report` is told each of them as it ends. The trained model is left in `server`.

    A round without a single valid update leaves the model as it is and is reported like any other.
    """

    def after(server_round: int, arrays: ArrayRecord) -> None:
        """Flower calls this before the first round (0) and after each."""
        if server_round > 0:
            server.load(arrays.to_torch_state_dict())
            on_report(_report(config, server_round - 1, clients, server, phase_of))
        if server_round < config.stream.rounds:
            clients.start_round(server_round, sample_clients(config, server_round))

    with _silent():
        strategy.start(clients, records_of(server), config.stream.rounds, evaluate_fn=after)


def _report(
    config: RunConfig, round: int, clients: ClientGrid, server: GlobalModel, phase_of: Callable[[int], Phase]
) -> RoundReport:
    started = time.perf_counter()
    accuracy = server.accuracy() if is_evaluated(config, round) else None
    exchanged = clients.exchanged
    n = len(exchanged.clients)
    return RoundReport(
        round=round,
        phase=phase_of(round),
        accuracy=accuracy,
        loss=None,
        verdicts=_unjudged(n),
        clients=np.array(exchanged.clients, np.int64),
        index=np.zeros(n, np.int64),
        labels=np.full(n, NO_LABEL, np.int64),
        rejections=exchanged.rejections,
        bytes_received=exchanged.bytes_received,
        wall_s={**exchanged.wall_s, "evaluation": time.perf_counter() - started},
    )


NO_LABEL = -1  # an update has none


def _unjudged(n: int) -> Verdicts:
    """Verdicts on `n` updates that nobody has measured: all are accepted."""
    nothing = np.full(n, np.nan)
    return Verdicts(nothing, nothing, np.zeros(n, np.int64), np.full(n, Action.ACCEPTED, np.int64), None)


@contextmanager
def _silent() -> Iterator[None]:
    """Without a strategy's log lines, dozens a round: progress is the observer's. Errors still come through."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
