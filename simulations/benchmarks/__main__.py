"""make bench: python -m simulations.benchmarks [ROW ...] [--quick] [--out FOLDER]

Measures the rows (all, or those named), prints a table, and leaves bench.json, bench.md and bench.svg in FOLDER.
The last line is one JSON object, a ratio a row; null is a row that failed. Exit code 1 where one did.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from simulations.benchmarks.harness import PAIRS, QUICK_PAIRS, ROOT, Measured, machine, measure
from simulations.benchmarks.rows import all_rows

HEADER = ("name", "what", "ratio", "to reach", "stretch", "ours", "baseline", "others' cores")


def main(arguments: Sequence[str] | None = None) -> int:
    rows = all_rows()
    parser = argparse.ArgumentParser(prog="python -m simulations.benchmarks", description=__doc__.split("\n")[0])
    parser.add_argument("row", nargs="*", help=f"of {', '.join(rows)}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PAIRS} pairs a row in place of {PAIRS}")
    parser.add_argument("--out", type=Path, default=Path("outputs", "bench"))
    options = parser.parse_args(arguments)
    if unknown := set(options.row) - set(rows):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; there are {', '.join(rows)}")
    here = machine()
    measured = []
    for name in options.row or rows:
        print(f"{name} ...", file=sys.stderr, flush=True)
        measured.append(measure(rows[name], QUICK_PAIRS if options.quick else PAIRS))
        print("  " + (measured[-1].failure or " | ".join(_cells(measured[-1])[2:])), file=sys.stderr, flush=True)
        write(options.out, here, measured)
    print(markdown(measured))
    print(json.dumps({each.row.name: each.ratio and round(each.ratio, 4) for each in measured}))
    return int(any(each.failure is not None for each in measured))


def write(folder: Path, here: dict[str, Any], measured: Sequence[Measured]) -> None:
    """The rows so far, for machines, for a page and for the eye."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"machine": here, "rows": [each.as_json() for each in measured]}
    (folder / "bench.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "bench.md").write_text(markdown(measured) + "\n")
    draw(folder / "bench.svg", measured)


def markdown(measured: Sequence[Measured]) -> str:
    """The table."""
    lines = [HEADER, ["---"] * 2 + ["---:"] * (len(HEADER) - 2), *map(_cells, measured)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(measured: Measured) -> list[str]:
    row, known = measured.row, [each for each in measured.others if each is not None]
    sign = "≤" if row.goal == "at most" else "≥"
    sides = [median(side) for side in zip(*measured.pairs, strict=True)] or [None, None]
    return [
        f"`{row.name}`",
        row.what,
        "failed" if measured.ratio is None else f"{measured.ratio:.2f}",
        f"{sign} {row.to_reach:g}",
        f"{row.stretch:g}",
        *("--" if side is None else f"{side:.4g} {row.unit}" for side in sides),
        f"{sum(known) / len(known):.2f}" if known else "--",
    ]


def draw(path: Path, measured: Sequence[Measured]) -> None:
    """Each row's pairs, as multiples of what is to be reached: to the right is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.36 * len(measured)), layout="constrained")
    for place, each in enumerate(measured):
        row = each.row
        better = [_better(row.goal, row.ratio(pair), row.to_reach) for pair in each.pairs]
        axes.plot(better, [place] * len(better), "|", color="0.5", markersize=9)
        if each.ratio is not None:
            axes.plot(_better(row.goal, each.ratio, row.to_reach), place, "o", color="C0")
        axes.plot(_better(row.goal, row.stretch, row.to_reach), place, "x", color="C1")
    axes.axvline(1, color="0.2", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(range(len(measured)), [each.row.name for each in measured])
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the ratio to reach (dot: median, bars: pairs, cross: stretch)")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _better(goal: str, ratio: float, to_reach: float) -> float:
    return to_reach / ratio if goal == "at most" else ratio / to_reach


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT)]
    sys.exit(main())
