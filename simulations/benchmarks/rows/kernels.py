"""The kernels of attack and defence over the published formulations (`simulations/benchmarks/literal.py`)."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from simulations.benchmarks.harness import Pair, Row, interleaved, script

RESNET = "ResNet-18, batch 100"
_measured: dict[tuple[str, ...], list[dict[str, float]]] = {}


def _run(number: int, *arguments: str) -> dict[str, float]:
    """The `number`-th run of a kernel: rows that look at time and at memory look at the same runs."""
    found = _measured.setdefault(arguments, [])
    while len(found) <= number:
        found.append(script("simulations.benchmarks.kernels", *arguments))
    return found[number]


def _pairs(kernel: str, ours: tuple[str, ...], baseline: tuple[str, ...], what: str, count: int) -> Iterator[Pair]:
    for number in range(count):
        mine, theirs = (partial(_run, number, kernel, *side) for side in (ours, baseline))
        yield next(interleaved(lambda: mine()[what], lambda: theirs()[what], 1))  # noqa: B023  called at once


def _row(name: str, what: str, goal: Any, to_reach: float, stretch: float, *pairs: Any, unit: str = "s") -> Row:
    return Row(name, what, goal, to_reach=to_reach, stretch=stretch, pairs=partial(_pairs, *pairs), unit=unit)


ONE, TEN, LITERAL = ("ours", "1"), ("ours", "10"), ("literal", "1")
ROWS = (
    _row(
        "accumulative_one", f"literal (2), (3) over ours: {RESNET}, 500 to validate; one attacker",
        "at least", 1.7, 2.5, "accumulative", ONE, LITERAL, "seconds",
    ),
    _row(
        "accumulative_one_bf16", "the same with runtime.precision=bf16",
        "at least", 1.7, 3.0, "accumulative", ("bf16", "1"), LITERAL, "seconds",
    ),
    _row(
        "accumulative_peak_memory", "memory that one attacker takes, ours over literal",
        "at most", 0.5, 0.33, "accumulative", ONE, LITERAL, "bytes", unit="B",
    ),
    _row(
        "accumulative_ten", "literal over ours, an attacker's share of ten",
        "at least", 6.0, 10.0, "accumulative", TEN, LITERAL, "seconds",
    ),
    _row(
        "dsc_20pct", f"literal (6), whole batch, both models at every step, over ours: {RESNET}, 20 samples active",
        "at least", 4.0, 6.0, "correction", ("ours",), ("literal",), "seconds",
    ),
    _row(
        "dsc_clean_step", f"an online step with (5) and (6) on clean traffic over one without: {RESNET}",
        "at most", 1.8, 1.5, "clean_step", ("ours",), ("literal",), "seconds",
    ),
)  # fmt: skip
