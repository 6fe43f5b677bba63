"""A run of mode=update from its first to its last round: Flower's own strategy loop, and a report after every round."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import Strategy

from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.defense.updates.screen import UpdateVerdict, excess
from fedmd.flower.server.client_grid import ClientGrid, client_of, node_of
from fedmd.flower.server.continued import Continued
from fedmd.flower.server.model_records import records_of
from fedmd.rounds.gate import Closed
from fedmd.rounds.global_model import GlobalModel
from fedmd.rounds.session import is_checkpoint_due, is_evaluated
from fedmd.rounds.update_guard import UpdateGuard
from fedmd.types import Action, Phase, RoundReport, Verdicts

NO_LABEL = -1  # an update has none


@dataclass(frozen=True)
class _Settled:
    """A round as the guard left it: whose updates were judged, and how many seconds the record took."""

    heard: tuple[int, ...] = ()
    closed: Closed = field(default_factory=Closed)
    wall_s: float = 0.0


class UpdateSession:
    """Runs a strategy on the federation's clients; `on_report` is told each round as it ends.

    `guard` is told everything about a round before the strategy aggregates it. A round without a single valid update
    leaves the model as it is and is reported like any other. The trained model is left in `server`.
    """

    def __init__(
        self,
        config: RunConfig,
        clients: ClientGrid,
        server: GlobalModel,
        guard: UpdateGuard,
        phase_of: Callable[[int], Phase],
        on_report: Callable[[RoundReport], None],
    ) -> None:
        self._config = config
        self._clients = clients
        self._server = server
        self._guard = guard
        self._phase_of = phase_of
        self._on_report = on_report
        self._judged: tuple[UpdateVerdict, ...] = ()
        self._judged_at = 0.0
        self._settled = _Settled()
        self._done = 0
        self._on_start: Callable[[], None] = lambda: None
        self.arrays = records_of(server)

    def run(
        self,
        strategy: Strategy,
        done: int = 0,
        arrays: ArrayRecord | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """All rounds; where `done` are over already, the others, from the model in `arrays` on."""
        self._done, self._on_start, self.arrays = done, on_start, arrays or self.arrays
        rounds = self._config.stream.rounds - done
        Continued(strategy, done).start(self._clients, self.arrays, rounds, evaluate_fn=self._after)

    def judged(self, server_round: int, verdicts: tuple[UpdateVerdict, ...]) -> None:
        """A screening strategy tells its verdicts here, before it lets the inner one aggregate."""
        self._judged, self._judged_at = verdicts, time.perf_counter()

    def settled(self, version: int) -> frozenset[int]:
        """A `Guarded` strategy asks here before it aggregates; the nodes whose updates it must not use."""
        started, exchanged, round = time.perf_counter(), self._clients.exchanged, self._clients.round
        admitted = exchanged.admitted
        if admitted is None:
            admitted = self._guard.admit(round, (), exchanged.rejections, strangers=exchanged.strangers)
        verdicts = {client_of(verdict.node): verdict for verdict in self._judged}
        closed = self._guard.settle(admitted, verdicts, version)
        heard = tuple(update.client for update in admitted.heard)
        self._settled = _Settled(heard, closed, time.perf_counter() - started)
        return frozenset(node_of(client) for client in closed.caught)

    def _after(self, server_round: int, arrays: ArrayRecord) -> None:
        """Flower calls this before the first round (0) and after each."""
        aggregated_at, done = time.perf_counter(), self._done + server_round
        self._server.load(arrays.to_torch_state_dict())
        self.arrays = arrays
        if server_round > 0:
            self._on_report(self._report(done - 1, aggregated_at))
            if is_checkpoint_due(self._config, done):
                self._guard.commit()
        else:
            self._on_start()
        if done < self._config.stream.rounds:
            self._judged, self._judged_at, self._settled = (), 0.0, _Settled()
            self._clients.start_round(done, sample_clients(self._config, done))

    def _report(self, round: int, aggregated_at: float) -> RoundReport:
        started, exchanged = time.perf_counter(), self._clients.exchanged
        due = is_evaluated(self._config, round)
        accuracy = self._server.accuracy() if due else None
        attack_success = self._server.attack_success() if due else None
        watched = due and self._config.observability.is_live
        trusted_accuracy = self._server.trusted_accuracy() if watched else None
        settled, screened_at = self._settled, self._judged_at or exchanged.at
        n = len(settled.heard)
        return RoundReport(
            round=round,
            phase=self._phase_of(round),
            accuracy=accuracy,
            loss=None,
            verdicts=_verdicts(settled, self._judged),
            clients=np.array(settled.heard, np.int64),
            index=np.zeros(n, np.int64),
            labels=np.full(n, NO_LABEL, np.int64),
            rejections=settled.closed.rejections,
            bytes_received=exchanged.bytes_received,
            wall_s={
                **exchanged.wall_s,
                **({"screening": screened_at - exchanged.at} if self._judged else {}),
                "guard": settled.wall_s,
                "step": aggregated_at - screened_at - settled.wall_s,
                "evaluation": time.perf_counter() - started,
            },
            attack_success=attack_success,
            quarantined=settled.closed.quarantined,
            trusted_accuracy=trusted_accuracy,
        )


def _verdicts(settled: _Settled, judged: tuple[UpdateVerdict, ...]) -> Verdicts:
    """One verdict a client's update, in the order of those heard; where nobody screens, all are accepted unmeasured.

    The score is how far an update's discrepancies, or its loss, go beyond their limits, as a factor: acted upon above
    1. Who was caught in this round is rejected, whatever the screening said of the update.
    """
    clients = settled.heard
    n, by_client = len(clients), {client_of(verdict.node): verdict for verdict in judged}
    if not judged:
        nothing = np.full(n, np.nan)
        return Verdicts(nothing, nothing, np.zeros(n, np.int64), np.full(n, Action.ACCEPTED, np.int64), None)
    mine = [by_client[client] for client in clients]
    actions = np.array([verdict.action for verdict in mine], np.int64)
    return Verdicts(
        before=np.array([_factor(verdict.excess) for verdict in mine]),
        after=np.array([_factor(excess(verdict.after, verdict.limits) if verdict.after else None) for verdict in mine]),
        steps=np.zeros(n, np.int64),
        actions=np.where(np.isin(clients, sorted(settled.closed.caught)), int(Action.REJECTED), actions),
        threshold=1.0,
        discrepancy=np.array([verdict.discrepancies[0] if verdict.discrepancies else np.nan for verdict in mine]),
    )


def _factor(excess: float | None) -> float:
    return np.nan if excess is None else float(np.exp(excess))


@contextmanager
def silent() -> Iterator[None]:
    """Without a strategy's log lines, dozens a round: progress is the observer's. Errors still come through."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
