"""Rounds in which nobody has anything to do, under ray: ours over plain Flower's `send_and_receive`."""

from collections.abc import Iterator
from functools import partial

from simulations.benchmarks.harness import Pair, Row, interleaved, script


def _pairs(nodes: int, count: int) -> Iterator[Pair]:
    """In processes of their own: Flower's engine looks at all its nodes ten times a second, also between rounds."""

    def ours() -> float:
        return float(script("simulations.benchmarks.rows.empty_rounds_fedmd", str(nodes)))

    def flower() -> float:
        return float(script("simulations.benchmarks.rows.empty_rounds_flower", str(nodes)))

    yield from interleaved(ours, flower, count)


ROWS = tuple(
    Row(
        f"empty_round_{nodes}",
        f"rounds a second with no work, {nodes} nodes under ray, over plain Flower's `send_and_receive`",
        "at least",
        to_reach,
        stretch,
        partial(_pairs, nodes),
    )
    for nodes, to_reach, stretch in ((100, 1.7, 2.0), (1000, 10.0, 25.0))
)
