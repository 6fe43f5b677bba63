"""Accuracy of several arms over rounds: mean and t-interval over seeds, one line an arm."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.run import BLACK, BLUE, VERMILLION, shade_phases, single_axis
from fedmd.report.statistics.intervals import mean_interval
from fedmd.types import Json

GREEN, PINK, ORANGE, SKY = "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
SHORT_NAME, LONGEST_NAME = 18, 50  # characters: two columns of a legend, and all of its width
Style = tuple[str, str, Any]  # colour, marker, line: an arm is told from the others without its colour
STYLES: tuple[Style, ...] = (
    (BLUE, "o", "-"),
    (VERMILLION, "^", "--"),
    (GREEN, "s", "-."),
    (PINK, "v", ":"),
    (ORANGE, "D", (0, (6, 1.5))),
    (SKY, "P", (0, (3, 1, 1, 1))),
    (BLACK, "X", (0, (1, 1))),
)


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """A style for every name; they repeat after len(STYLES) names."""
    return dict(zip(names, cycle(STYLES)))


def arm_accuracy_figure(arms: Mapping[str, Sequence[Sequence[Json]]], styles: Mapping[str, Style]) -> Figure:
    """Accuracy in % of each arm, `arms[name]` being its seeds' metrics and `styles[name]` how it is drawn.

    The shades are the phases of the longest run; where an arm's own phases differ, so does what they mean for it.
    """
    figure, axis = single_axis()
    longest = max((metrics for runs in arms.values() for metrics in runs), key=len, default=[])
    shade_phases(axis, [(row["round"], row["phase"]) for row in longest])
    for name, runs in arms.items():
        color, marker, line = styles[name]
        rounds, mean, half = accuracy_by_round(runs)
        axis.fill_between(rounds, mean - half, mean + half, facecolor=color, alpha=0.1, linewidth=0)
        for edge in (mean - half, mean + half):
            axis.plot(rounds, edge, color=color, linestyle=line, linewidth=0.6, alpha=0.7)
        axis.plot(rounds, mean, color=color, marker=marker, linestyle=line, markersize=3.5, label=legend_text(name))
    axis.set_ylabel("Test accuracy (%)")
    axis.set_ylim(bottom=max(axis.get_ylim()[0], -2), top=min(axis.get_ylim()[1], 102))
    if arms:
        figure.legend(loc="outside lower center", ncols=legend_columns(arms), frameon=False)
    return figure


def accuracy_by_round(
    runs: Sequence[Sequence[Json]],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Evaluated rounds [R], mean accuracy in % [R], half width of its t-interval [R] (NaN for a single run)."""
    by_round: dict[int, list[float]] = {}
    for row in (row for metrics in runs for row in metrics):
        if row["accuracy"] is not None:
            by_round.setdefault(row["round"], []).append(100 * row["accuracy"])
    rounds = sorted(by_round)
    intervals = [mean_interval(by_round[number]) for number in rounds]
    mean = np.array([interval["mean"] for interval in intervals], np.float64)
    half = np.array([interval["ci95"] for interval in intervals], np.float64)
    return np.array(rounds, np.int64), mean, half


def legend_columns(names: Iterable[str]) -> int:
    """One column for long names, two for short ones."""
    return 1 if max(map(len, names), default=0) > SHORT_NAME else 2


def legend_text(name: str) -> str:
    """`name`, shortened, as matplotlib shows it literally: no mathematics between dollars, no hiding underscore."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    literal = short.replace("$", r"\$")
    return "\u200b" + literal if literal.startswith("_") else literal
