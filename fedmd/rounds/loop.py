"""The round, once, for both modes: collect, admit, judge, record, learn, report, checkpoint.

What is collected and judged, and how is learned from it, is the business of a `Server` (`stream.py`: samples and one
online step; `update.py`: model updates and an aggregation). Where messages come from is a `Collect`'s, which may speak
Flower; here nothing does.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.rounds.gate import Gate
from fedmd.rounds.protocols import Collect, Server
from fedmd.rounds.records import M, RoundResult
from fedmd.types import Phase, RoundReport


def run_rounds(
    config: RunConfig,
    server: Server[M],
    collect: Collect[M],
    gate: Gate[M],
    phase_of: Callable[[int], Phase],
    *,
    first: int = 0,
) -> Iterator[RoundResult[M]]:
    """Yield one result a round, from round `first` on. `phase_of` is asked after the round's messages have arrived.

    Where a checkpoint is due after a round, it must have been made before the next result is asked for. A round
    without a single valid message moves nothing and is reported like any other.
    """
    for round in range(first, config.stream.rounds):
        watch = Stopwatch()
        with watch("transport"):
            collected = collect(round, sample_clients(config, round), server.model.net)
        with watch("guard"):
            admitted = gate.admit(round, collected)
        judged = server.judge(admitted.messages)
        with watch("guard"):
            recorded = gate.record(admitted, judged)  # on disk, before the model moves
        learned = server.learn(recorded.judged)
        if learned.undone is not None:
            gate.note_undone(round, learned.undone)
        with watch("evaluation"):
            due = is_evaluated(config, round)
            accuracy = server.model.accuracy() if due else None
            attack_success = server.model.attack_success() if due else None
            trusted_accuracy = server.model.trusted_accuracy() if due and config.observability.is_live else None
        report = RoundReport(
            round=round,
            phase=phase_of(round),
            accuracy=accuracy,
            loss=learned.loss,
            verdicts=recorded.judged.verdicts,
            clients=judged.clients,
            index=judged.index,
            labels=judged.labels,
            rejections=recorded.rejections,
            bytes_received=collected.bytes_received,
            wall_s={**watch.seconds, **collected.wall_s, **judged.wall_s, **learned.wall_s},
            attack_success=attack_success,
            quarantined=recorded.quarantined,
            alarms=recorded.alarms,
            trusted_accuracy=trusted_accuracy,
            undone=learned.undone,
            audit_head=None if (head := gate.head) is None else (head.seq, head.hash),
        )
        yield RoundResult(report, recorded.judged)
        if is_checkpoint_due(config, round + 1):
            gate.commit()
        del collected, admitted, judged, recorded  # with their messages: the next round's are about to come


class Stopwatch:
    """`with watch(stage):` adds to `seconds[stage]`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Book the block's seconds on `stage`."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


def is_checkpoint_due(config: RunConfig, done: int) -> bool:
    """Whether there is to be a checkpoint when `done` rounds are over. Without any, rounds are final as they end.

    Never where it is not `is_between_replies`.
    """
    per_reply, every = config.federation.batches_per_reply, max(1, config.runtime.checkpoint_every)
    return done % (per_reply * -(-every // per_reply)) == 0 or done == config.stream.rounds


def is_between_replies(config: RunConfig, done: int) -> bool:
    """Whether a checkpoint can be made: not amid the rounds of one reply, for what came ahead is in no checkpoint."""
    return done % config.federation.batches_per_reply == 0


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
