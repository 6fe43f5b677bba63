"""Figures of one run: accuracy by phase, the detector's score of clean and poisoned samples, example images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.style import (
    BLACK,
    BLUE,
    DPI,
    LOG_RATIO,
    LOG_SPAN,
    VERMILLION,
    hover_points,
    plain_log_ticks,
    shade_phases,
    single_axis,
)
from fedmd.report.files import (
    ACCURACY_FIGURE,
    EXAMPLES_FIGURE,
    SCORE_FIGURE,
    Truth,
    read_metrics,
)
from fedmd.report.scores import Score, threshold_label
from fedmd.report.verdicts import read_verdicts
from fedmd.types import ExampleImages, Json

BAND = (0.1, 0.5, 0.9)  # quantiles: lower edge, median, upper edge
ATTACK_SUCCESS = "attack success: stamped, taken for the target"
SPREAD = "samples: median and 10–90 %"


def accuracy_figure(metrics: Sequence[Json]) -> Figure:
    """Accuracy in % over the evaluated rounds, phases shaded and labelled; `metrics` of read_metrics.

    Where a backdoor is planted, the attack success rate stands beside it.
    """
    figure, axis = single_axis()
    shade_phases(axis, [(row["round"], row["phase"]) for row in metrics])
    evaluated = [row for row in metrics if row["accuracy"] is not None]
    accuracies = [100 * row["accuracy"] for row in evaluated]
    rounds = [row["round"] for row in evaluated]
    axis.plot(rounds, accuracies, color=BLUE, marker="o", markersize=3.5, label="accuracy")
    hover_points(axis, rounds, accuracies, [f"round {r}: {v:.1f} %" for r, v in zip(rounds, accuracies, strict=True)])
    axis.set_ylabel("Test accuracy (%)")
    if any(row.get("attack_success") is not None for row in evaluated):
        success = [np.nan if (rate := row["attack_success"]) is None else 100 * rate for row in evaluated]
        axis.plot(rounds, success, color=VERMILLION, marker="^", linestyle="--", markersize=3.5, label=ATTACK_SUCCESS)
        axis.set_ylabel("Share of test images (%)")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def score_figure(verdicts: pd.DataFrame, truth: Truth, score: Score, threshold: str = "threshold") -> Figure:
    """The detector's score of clean and poisoned samples over rounds: median, 10–90 % band, the threshold.

    `verdicts` of read_verdicts; `score` is what they have in `before`, `threshold` what the legend calls the threshold.
    Log scale where the values span more than a factor of LOG_RATIO.
    """
    figure, axis = single_axis()
    phases = verdicts[["round", "phase"]].drop_duplicates()
    shade_phases(axis, list(phases.itertuples(index=False, name=None)))
    poisoned = truth.of(verdicts)
    seen = verdicts["round"]
    rounds = np.arange(seen.min(), seen.max() + 1) if len(seen) else np.arange(0)
    drawn = [
        draw_band(axis, verdicts[~poisoned], rounds, color=BLUE, marker="o", label=truth.others),
        draw_band(axis, verdicts[poisoned], rounds, color=VERMILLION, marker="^", label="poisoned"),
    ]
    thresholds = verdicts.groupby("round")["threshold"].first().reindex(rounds).to_numpy(np.float64)
    if np.isfinite(thresholds).any():
        axis.step(rounds, thresholds, where="mid", color=BLACK, linestyle="--", label=threshold)
        drawn.append(thresholds)
    axis.set_ylabel(score.with_unit)
    values = np.concatenate([item.ravel() for item in drawn])
    positive = values[np.isfinite(values) & (values > 0)]
    if not np.isfinite(values).any():
        axis.text(0.5, 0.5, score.unmeasured, transform=axis.transAxes, ha="center")
        axis.set_yticks([])
        return figure
    if len(positive) and positive.max() > LOG_RATIO * positive.min():
        axis.set_yscale("log", nonpositive="clip")
        plain_log_ticks(axis.yaxis, positive.max() / positive.min())
        axis.set_ylim(max(positive.min(), positive.max() / LOG_SPAN) / 1.5, positive.max() * 1.5)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=SPREAD, title_fontsize=8.5)
    return figure


def example_images_figure(examples: ExampleImages) -> Figure:
    """Rows clean / poisoned / corrected, columns the samples; uint8 [n, C, H, W], C = 1 grey or 3 RGB.

    Raises:
        ValueError: the three parts differ in shape, are empty, or C is neither 1 nor 3.
    """
    rows = {"clean": examples.clean, "poisoned": examples.poisoned, "corrected": examples.corrected}
    shapes = {images.shape for images in rows.values()}
    n, channels = examples.clean.shape[:2]
    if len(shapes) != 1 or n == 0 or channels not in (1, 3):
        raise ValueError(f"example images are three times [n >= 1, 1 or 3, H, W], not {sorted(shapes)}")
    figure = Figure(figsize=(0.9 + 0.85 * n, 0.1 + 0.85 * 3), dpi=DPI, layout="constrained")
    axes = figure.subplots(3, n, squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        line[0].set_ylabel(name)
        for image, axis in zip(images, line, strict=True):
            axis.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure


def write_figures(folder: Path, examples: ExampleImages | None, score: Score, stopping: str) -> list[Path]:
    """Save accuracy.png, discrepancy.png and, given `examples`, example_images.png of the run in `folder`; their paths.

    discrepancy.png shows `score`, and names it; `stopping` is the defence's setting. Without truth.json every sample
    counts as clean.
    """
    columns = ["round", "phase", "client", "index", "before", "threshold"]
    verdicts = read_verdicts(folder, columns)
    figures = {
        ACCURACY_FIGURE: accuracy_figure(read_metrics(folder)),
        SCORE_FIGURE: score_figure(verdicts, Truth.read(folder), score, threshold_label(stopping)),
    }
    if examples is not None:
        figures[EXAMPLES_FIGURE] = example_images_figure(examples)
    for file, figure in figures.items():
        figure.savefig(folder / file)
    return [folder / file for file in figures]


def draw_band(
    axis: Axes, verdicts: pd.DataFrame, rounds: NDArray[Any], *, color: str, marker: str, label: str
) -> NDArray[np.float64]:
    """Draw median and band of `before` by round; the quantiles drawn [rounds, 3], NaN where nothing is."""
    measured = verdicts[np.isfinite(verdicts["before"])]
    if not len(measured):
        return np.full((len(rounds), len(BAND)), np.nan)
    table = measured.groupby("round")["before"].quantile(list(BAND)).unstack().reindex(rounds)
    quantiles: NDArray[np.float64] = table.to_numpy(np.float64)
    lower, median, upper = quantiles.T
    axis.fill_between(rounds, lower, upper, color=color, alpha=0.2, linewidth=0)
    there = np.pad(np.isfinite(median), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]  # rounds that fill no band
    axis.vlines(rounds[alone], lower[alone], upper[alone], color=color, alpha=0.4)
    axis.plot(rounds, median, color=color, marker=marker, markersize=3.5, label=label)
    shown = table[np.isfinite(median)]
    told = [f"round {r}, {label}: median {m:.3g}, 10–90 % {lo:.3g} to {hi:.3g}" for r, (lo, m, hi) in shown.iterrows()]
    hover_points(axis, shown.index, shown[BAND[1]], told)
    return quantiles
