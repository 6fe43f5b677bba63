"""What a federation costs goes by who is asked in a round, not by how many clients there are."""

from collections.abc import Iterator
from functools import cache, partial

from simulations.benchmarks.harness import Pair, Row, interleaved, script

# The demo's net, attacked and defended, all phases; everything in one process.
FEDERATION = ("runtime.engine=inline", "model.width=8", "attack.fraction=0.2", "federation.clients=10000")
ONCE = ("stream.clean_rounds=1", "stream.accumulative_rounds=1", "stream.trigger_rounds=1", "stream.recovery_rounds=1")
TEN_TIMES = tuple(f"{rounds}0" for rounds in ONCE)


@cache  # time and memory are two rows of the same runs
def _run(*overrides: str) -> dict[str, float]:
    found: dict[str, float] = script("simulations.benchmarks.federation", *FEDERATION, *overrides)
    return found


def _population(what: str, pairs: int) -> Iterator[Pair]:
    """Another seed in every pair: it decides how many of the members are asked, which is most of what differs."""
    _run("federation.clients_per_round=10", *ONCE)  # caches
    for seed in range(pairs):
        many, few = (
            partial(_run, "federation.clients_per_round=10", f"federation.clients={clients}", f"seed={seed}")
            for clients in (10_000, 100)
        )
        yield next(interleaved(lambda: many()[what], lambda: few()[what], 1))  # noqa: B023  called at once


def _sampled(pairs: int) -> Iterator[Pair]:
    for seed in range(pairs):
        at_once = _run("federation.clients_per_round=1000", *ONCE, f"seed={seed}")
        in_ten = _run("federation.clients_per_round=100", *TEN_TIMES, f"seed={seed}")
        yield at_once["seconds"], in_ten["seconds"]


# Hardly any computing, models of 45 MB; a node a client, so that no reply has two of them.
UPDATES = (
    "runtime.engine=inline",
    "mode=update",
    "model=resnet18",
    "defense=none",
    "attack.fraction=0",
    "local.samples=2",
    "local.epochs=1",
    "data.splits.burn_in=200",
    "data.splits.test=100",
    "training.burn_in.epochs=1",
    "stream.clean_rounds=2",
    "stream.accumulative_rounds=0",
    "stream.trigger_rounds=0",
    "stream.recovery_rounds=0",
)


def _updates(pairs: int) -> Iterator[Pair]:
    for seed in range(pairs):
        many, few = (
            script(
                "simulations.benchmarks.federation",
                *UPDATES,
                f"federation.clients={clients}",
                f"federation.nodes={clients}",
                f"seed={seed}",
            )
            for clients in (100, 10)
        )
        yield many["bytes"], few["bytes"]


ROWS = (
    Row(
        "population_time",
        "rounds of 10 of 10,000 clients over rounds of 10 of 100; attacked and defended, all phases",
        "at most",
        to_reach=1.15,
        stretch=1.05,
        pairs=partial(_population, "seconds"),
    ),
    Row(
        "population_memory",
        "peak memory of the same",
        "at most",
        to_reach=1.2,
        stretch=1.05,
        pairs=partial(_population, "bytes"),
        unit="B",
    ),
    Row(
        "sampled_1000",
        "a round of 1,000 of 10,000 clients over ten rounds of 100",
        "at most",
        to_reach=1.2,
        stretch=1.0,
        pairs=_sampled,
    ),
    Row(
        "updates_memory",
        "peak memory of a run of mode=update, 100 clients over 10, models of 11 million parameters",
        "at most",
        to_reach=1.2,
        stretch=1.05,
        pairs=_updates,
        unit="B",
    ),
)
