"""A run from its first to its last round. Where batches come from is somebody else's business (`Collector`)."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import nn

from fedmd.config import RunConfig
from fedmd.data.sampling import sample_clients
from fedmd.server.learner import Learned, OnlineLearner
from fedmd.types import Phase, Rejection, RoundReport, StreamBatch, Verdicts


@dataclass(frozen=True)
class Collected:
    """What came of asking a round's clients: valid batches in the order of their clients, and the rest."""

    batches: tuple[StreamBatch, ...]
    rejections: tuple[Rejection, ...]
    bytes_received: int


class Collector(Protocol):
    """Asks `clients` for their batch of `round`; those that subscribe to the model are given `model`."""

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected: ...


@dataclass(frozen=True)
class RoundResult:
    """A round's report together with the tensors it was made from (for figures; not kept by the session)."""

    report: RoundReport
    batches: tuple[StreamBatch, ...]
    learned: Learned | None


def run_session(
    config: RunConfig, learner: OnlineLearner, collect: Collector, phase_of: Callable[[int], Phase]
) -> Iterator[RoundResult]:
    """Yield one result a round. `phase_of` is asked after the round's batches have arrived.

    A round without a single valid batch makes no step and is reported like any other.
    """
    for round in range(config.stream.rounds):
        started = time.perf_counter()
        collected = collect(round, sample_clients(config, round), learner.model)
        transport_s = time.perf_counter() - started
        learned = learner.learn(collected.batches) if collected.batches else None
        started = time.perf_counter()
        accuracy = learner.accuracy() if is_evaluated(config, round) else None
        evaluation_s = time.perf_counter() - started
        report = RoundReport(
            round=round,
            phase=phase_of(round),
            accuracy=accuracy,
            loss=learned.loss if learned else None,
            verdicts=learned.screened.verdicts if learned else _NO_VERDICTS,
            clients=learned.clients if learned else _NO_IDS,
            index=learned.index if learned else _NO_IDS,
            labels=learned.labels if learned else _NO_IDS,
            rejections=collected.rejections,
            bytes_received=collected.bytes_received,
            wall_s={
                "transport": transport_s,
                **(learned.wall_s if learned else {}),
                "evaluation": evaluation_s,
            },
        )
        yield RoundResult(report, collected.batches, learned)


def is_evaluated(config: RunConfig, round: int) -> bool:
    """Whether the model is tested after `round`."""
    due = (round + 1) % config.runtime.evaluate_every == 0 or round + 1 == config.stream.rounds
    return due or _phase_ends(config, round)


def _phase_ends(config: RunConfig, round: int) -> bool:
    """Whether a planned phase ends with `round`; attackers who may trigger early make every round count."""
    stream = config.stream
    attack = stream.clean_rounds + stream.accumulative_rounds
    if config.attack.stop_error_rise is not None and round >= stream.clean_rounds - 1:
        return True
    return round + 1 in (stream.clean_rounds, attack, attack + stream.trigger_rounds)


_NO_IDS = np.zeros(0, np.int64)
_NO_VERDICTS = Verdicts(np.zeros(0), np.zeros(0), _NO_IDS, _NO_IDS, None)
