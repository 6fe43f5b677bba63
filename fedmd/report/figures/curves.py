"""ROC and precision-recall curves of scores as detectors of poisoned samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.style import BLACK, DPI, GREY, Style, legend_columns, legend_text
from fedmd.report.statistics.detection import Alarms

GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Curve:
    """Points `x` [K], ascending, and `y` [K]; one a threshold, from the highest to the lowest."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """What the thresholds in force did: shares of the poisoned (tpr) and clean (fpr) samples above them."""

    tpr: float
    fpr: float
    precision: float | None  # None when nothing was above


def roc_points(scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> Curve | None:
    """Points x = FPR, y = TPR of "score >= t" for every t; None when a class is missing. NaN scores are left out."""
    measured = ~np.isnan(scores)
    if len(np.unique(poisoned[measured])) < 2:
        return None
    return Curve(*Alarms.of(scores[measured], poisoned[measured]).corners.rates)


def precision_recall_points(scores: NDArray[np.float64], poisoned: NDArray[np.bool_]) -> Curve | None:
    """Points with x = recall and y = precision of "score >= t" for every t; None when a class is missing.

    Of a recall's points the first has the highest precision. The area under the steps that end in the points,
    Σ (x_k - x_{k-1}) y_k, is the average precision.
    """
    measured = ~np.isnan(scores)
    if len(np.unique(poisoned[measured])) < 2:
        return None
    alarms = Alarms.of(scores[measured], poisoned[measured])
    return Curve(alarms.rates[1][1:], alarms.precision)


def operating_point(
    scores: NDArray[np.float64], thresholds: NDArray[np.float64], poisoned: NDArray[np.bool_]
) -> Point | None:
    """Rates of "what was held against the threshold exceeded it", [N] each; None without a class or a threshold."""
    known = ~np.isnan(scores) & ~np.isnan(thresholds)
    above, truth = (scores > thresholds)[known], poisoned[known]
    if len(np.unique(truth)) < 2:
        return None
    precision = float(truth[above].mean()) if above.any() else None
    return Point(float(above[truth].mean()), float(above[~truth].mean()), precision)


def mean_roc(curves: Sequence[Curve]) -> Curve:
    """Mean over `curves` of the largest TPR whose FPR is at most x, for x in GRID."""
    rows = [curve.y[np.searchsorted(curve.x, GRID, side="right") - 1] for curve in curves]
    return Curve(GRID, np.mean(rows, axis=0))


def mean_precision_recall(curves: Sequence[Curve]) -> Curve:
    """Mean over `curves` of the precision at the smallest recall that is at least x, for x in GRID."""
    rows = [curve.y[np.searchsorted(curve.x, GRID, side="left").clip(max=len(curve.x) - 1)] for curve in curves]
    return Curve(GRID, np.mean(rows, axis=0))


def roc_figure(curves: Mapping[str, Curve], styles: Mapping[str, Style], point: Point | None = None) -> Figure:
    """ROC curves, the diagonal of chance, and a diamond at the thresholds in force."""
    figure = square("False positive rate (clean above)", "True positive rate (poisoned above)")
    (axis,) = figure.axes
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
    for name, curve in curves.items():
        color, _, line = styles[name]
        axis.plot(curve.x, curve.y, color=color, linestyle=line, label=legend_text(name))
    if point is not None:
        axis.plot([point.fpr], [point.tpr], color=BLACK, marker="D", linestyle="", label="at the threshold")
    figure.legend(loc="outside lower center", ncols=legend_columns(curves), frameon=False)
    return figure


def precision_recall_figure(
    curves: Mapping[str, Curve],
    styles: Mapping[str, Style],
    prevalence: float | None = None,
    point: Point | None = None,
) -> Figure:
    """Precision-recall curves, the share of poisoned samples, and the thresholds in force."""
    figure = square("Recall (poisoned above)", "Precision (of those above, poisoned)")
    (axis,) = figure.axes
    if prevalence is not None:
        axis.axhline(prevalence, color=GREY, linestyle=":", linewidth=1, label="chance")
    for name, curve in curves.items():
        color, _, line = styles[name]
        axis.step(curve.x, curve.y, where="pre", color=color, linestyle=line, label=legend_text(name))
    if point is not None and point.precision is not None:
        axis.plot([point.tpr], [point.precision], color=BLACK, marker="D", linestyle="", label="at the threshold")
    figure.legend(loc="outside lower center", ncols=legend_columns(curves), frameon=False)
    return figure


def square(x_label: str, y_label: str) -> Figure:
    """An axis over [0, 1] by [0, 1]."""
    figure = Figure(figsize=(5.0, 4.4), dpi=DPI, layout="constrained")
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x_label, ylabel=y_label)
    return figure
