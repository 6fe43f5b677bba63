"""Distribution of the detector's score of clean and poisoned samples, phase by phase, with the threshold drawn in."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedmd.report.figures.style import BLACK, BLUE, DPI, LOG_RATIO, LOG_SPAN, VERMILLION, plain_log_ticks
from fedmd.report.files import Truth
from fedmd.report.scores import Score
from fedmd.types import PHASES

BINS = 40
TINY = 1e-30


def distribution_figure(verdicts: pd.DataFrame, truth: Truth, score: Score) -> Figure:
    """One panel a phase: share of the phase's clean and of its poisoned samples in each bin of the score.

    `verdicts` of read_verdicts, `score` what they have in `before`. The dashed line is the median of the thresholds in
    force, the shade their range.
    """
    measured = verdicts[np.isfinite(verdicts["before"])]
    present = set(measured["phase"].unique())
    phases = [phase for phase in PHASES if phase in present]
    figure = Figure(figsize=(5.0, 1.2 + 1.05 * max(1, len(phases))), dpi=DPI, layout="constrained")
    axes = figure.subplots(max(1, len(phases)), 1, sharex=True, squeeze=False)[:, 0]
    if not phases:
        axes[0].text(0.5, 0.5, score.unmeasured, transform=axes[0].transAxes, ha="center")
        axes[0].set(xticks=[], yticks=[])
        return figure
    edges = bin_edges(measured["before"].to_numpy(np.float64))
    for phase, axis in zip(phases, axes, strict=True):
        draw_phase(axis, measured[measured["phase"] == phase], truth, edges)
        axis.set_ylabel(phase, fontsize=8.5)
    if edges[0] > 0:
        axes[-1].set_xscale("log")
        plain_log_ticks(axes[-1].xaxis, edges[-1] / edges[0])
    else:
        axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes[-1].xaxis.set_major_formatter("{x:g}")
    axes[-1].set_xlim(edges[0], edges[-1])
    axes[-1].set_xlabel(score.with_unit)
    drawn = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def bin_edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """BINS + 1 edges over the finite `scores`: from 0, or logarithmic and positive where they span LOG_RATIO."""
    top: float = max(float(scores.max()), TINY)
    positive = scores[scores > 0]
    edges: NDArray[np.float64] = np.linspace(min(0.0, float(scores.min())), top, BINS + 1)
    if len(positive) and top > LOG_RATIO * float(np.quantile(positive, 0.01)):
        edges = np.geomspace(max(float(positive.min()), top / LOG_SPAN), top, BINS + 1)
    return edges


def shares(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share in % of the scores in each bin [BINS]; those beyond the edges are in the outermost bins."""
    counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
    return 100 * counts / max(1, len(scores))


def draw_phase(axis: Axes, verdicts: pd.DataFrame, truth: Truth, edges: NDArray[np.float64]) -> None:
    """Clean samples filled, poisoned ones outlined, thresholds dashed."""
    poisoned = truth.of(verdicts)
    scores = verdicts["before"].to_numpy(np.float64)
    if (~poisoned).any():
        axis.stairs(
            shares(scores[~poisoned], edges), edges, fill=True, color=BLUE, alpha=0.45, label=f"{truth.others} (filled)"
        )
    if poisoned.any():
        axis.stairs(shares(scores[poisoned], edges), edges, color=VERMILLION, linewidth=1.6, label="poisoned (line)")
    thresholds = verdicts["threshold"].dropna().to_numpy(np.float64)
    if len(thresholds):
        axis.axvspan(thresholds.min(), thresholds.max(), color=BLACK, alpha=0.08, linewidth=0)
        axis.axvline(float(np.median(thresholds)), color=BLACK, linestyle="--", linewidth=1.2, label="threshold")
    axis.spines[["top", "right"]].set_visible(False)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
