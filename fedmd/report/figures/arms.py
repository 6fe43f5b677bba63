"""Accuracy of several arms over rounds: mean and t-interval over seeds, one line an arm."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.style import HOVER, Style, legend_columns, legend_text, shade_phases, single_axis
from fedmd.report.statistics.intervals import mean_interval
from fedmd.report.table import cell_text, share
from fedmd.types import Json

FEW = 3  # seeds; of fewer each is a thin line, and there is no band


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
        if len(runs) < FEW:  # the t-interval of two seeds is as wide as the figure
            for seed in runs if len(runs) > 1 else ():
                points = [(row["round"], 100 * row["accuracy"]) for row in seed if row["accuracy"] is not None]
                axis.plot(*zip(*points, strict=True), color=color, linestyle=line, linewidth=0.7, alpha=0.5)
        else:
            low, high = np.clip(mean - half, 0, 100), np.clip(mean + half, 0, 100)  # there is nothing beyond
            axis.fill_between(rounds, low, high, facecolor=color, alpha=0.08, linewidth=0)
            for edge in (low, high):
                axis.plot(rounds, edge, color=color, linestyle=line, linewidth=0.4, alpha=0.5)
        axis.plot(rounds, mean, color=color, marker=marker, linestyle=line, markersize=3.5, label=legend_text(name))
        for number, value, spread in zip(rounds, mean, half, strict=True):
            (point,) = axis.plot([number], [value], marker, color=color, markersize=3.5)
            half_width = None if np.isnan(spread) or len(runs) < FEW else spread / 100
            shown = cell_text(share({"mean": value / 100, "ci95": half_width}))
            point.set_gid(f"{HOVER}{name}, round {number}: {shown} %")
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
