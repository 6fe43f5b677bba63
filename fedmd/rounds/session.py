"""A run from its first to its last round. Where batches come from is somebody else's business (`Collector`)."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.rounds.gate import Guard
from fedmd.rounds.learner import NO_IDS, NO_VERDICTS, Learned, OnlineLearner
from fedmd.types import Phase, Rejection, RoundReport, Stranger, StreamBatch


@dataclass(frozen=True)
class Collected:
    """What came of asking a round's clients: valid batches in the order of their clients, and the rest.

    `nodes` maps clients to the fingerprint of the key of the node that answered for them, where nodes have keys;
    `strangers` are the nodes that were not let in since the round before.
    """

    batches: tuple[StreamBatch, ...]
    rejections: tuple[Rejection, ...]
    bytes_received: int
    nodes: Mapping[int, str] = field(default_factory=dict)
    strangers: tuple[Stranger, ...] = ()


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
    config: RunConfig,
    learner: OnlineLearner,
    collect: Collector,
    phase_of: Callable[[int], Phase],
    guard: Guard | None = None,
    *,
    first: int = 0,
) -> Iterator[RoundResult]:
    """Yield one result a round, from round `first` on. `phase_of` is asked after the round's batches have arrived.

    `guard` keeps quarantined clients away from the model and records the round before the model moves; without one
    config.quarantine is applied and nothing is recorded or kept. Where a checkpoint is due after a round, it must have
    been made before the next result is asked for.

    A round without a single valid batch makes no step and is reported like any other.
    """
    guard = guard or Guard(config.quarantine)
    for round in range(first, config.stream.rounds):
        started = time.perf_counter()
        collected = collect(round, sample_clients(config, round), learner.model)
        transport_s = time.perf_counter() - started
        started = time.perf_counter()
        admitted = guard.admit(round, collected.batches, collected.rejections, collected.nodes, collected.strangers)
        admission_s = time.perf_counter() - started
        judged = learner.judge(admitted.heard) if admitted.heard else None
        started = time.perf_counter()
        settled = guard.settle(admitted, judged, learner.pipeline.steps, learner.trusted_scores)
        guard_s = admission_s + time.perf_counter() - started
        learned = learner.step(settled.judged) if settled.judged else None
        started = time.perf_counter()
        due = is_evaluated(config, round)
        accuracy = learner.accuracy() if due else None
        attack_success = learner.attack_success() if due else None
        trusted_accuracy = learner.trusted_accuracy() if due and config.observability.is_live else None
        evaluation_s = time.perf_counter() - started
        report = RoundReport(
            round=round,
            phase=phase_of(round),
            accuracy=accuracy,
            loss=learned.loss if learned else None,
            verdicts=learned.screened.verdicts if learned else NO_VERDICTS,
            clients=learned.clients if learned else NO_IDS,
            index=learned.index if learned else NO_IDS,
            labels=learned.labels if learned else NO_IDS,
            rejections=settled.rejections,
            bytes_received=collected.bytes_received,
            wall_s={
                "transport": transport_s,
                "guard": guard_s,
                **(learned.wall_s if learned else {}),
                "evaluation": evaluation_s,
            },
            attack_success=attack_success,
            quarantined=settled.quarantined,
            trusted_accuracy=trusted_accuracy,
        )
        yield RoundResult(report, collected.batches, learned)
        if is_checkpoint_due(config, round + 1):
            guard.commit()


def is_checkpoint_due(config: RunConfig, done: int) -> bool:
    """Whether there is to be a checkpoint when `done` rounds are over. Without any, rounds are final as they end.

    Never in the middle of a reply that brought several rounds' batches: what came ahead is in no checkpoint.
    """
    per_reply, every = config.federation.batches_per_reply, max(1, config.runtime.checkpoint_every)
    return done % (per_reply * -(-every // per_reply)) == 0 or done == config.stream.rounds


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
