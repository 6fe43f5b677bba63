"""Who is malicious, and when: a fixed pool of clients and the phases of a run."""

from functools import lru_cache

from fedmd.config import StreamConfig
from fedmd.seeding import numpy_generator
from fedmd.types import Phase


@lru_cache(maxsize=16)  # a node asks in every request, and a permutation of all clients takes its time
def malicious_clients(clients: int, fraction: float, seed: int) -> tuple[int, ...]:
    """The round(fraction * clients) malicious client ids, ascending, fixed for a whole run.

    They are the head of one seeded permutation, so the pool at a smaller fraction is a subset of that at a larger.
    """
    order = numpy_generator(seed, "roster").permutation(clients)
    return tuple(sorted(order[: round(fraction * clients)].tolist()))


def planned_trigger_round(stream: StreamConfig) -> int:
    """The round in which the trigger is sent unless the attackers stop accumulating earlier."""
    return stream.clean_rounds + stream.accumulative_rounds


def phase_of(stream: StreamConfig, round: int, triggered_at: int | None = None) -> Phase:
    """The phase of `round` (from 0). `triggered_at` is the round the attackers announced, if they did.

    An early trigger lengthens the recovery: the number of rounds stays the same, so that runs can be paired.
    """
    trigger = planned_trigger_round(stream) if triggered_at is None else triggered_at
    if round < stream.clean_rounds:
        return "clean"
    if round < trigger:
        return "accumulative"
    return "trigger" if round < trigger + stream.trigger_rounds else "recovery"
