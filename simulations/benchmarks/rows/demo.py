"""The demo's federation, attacked and defended: a round of ours over a round of a bare loop over the same kernels."""

from collections.abc import Iterator

from simulations.benchmarks.harness import Pair, Row, interleaved, script


def _pairs(count: int) -> Iterator[Pair]:
    def ours() -> float:
        return float(script("simulations.benchmarks.rows.demo_fedmd"))

    def bare() -> float:
        return float(script("simulations.benchmarks.rows.demo_bare"))

    ours()  # reads the data and burns in, once
    yield from interleaved(ours, bare, count)


ROWS = (
    Row(
        "overhead_demo",
        "the demo: 10 clients, 3 of them attackers, DSC, one thread; a round over one of a bare loop with the same "
        "batches, crafting, screening, steps and tests",
        "at most",
        to_reach=1.25,
        stretch=1.1,
        pairs=_pairs,
    ),
)
