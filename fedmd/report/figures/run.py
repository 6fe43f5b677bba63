"""Figures of one run: accuracy by phase, the detector's score of clean and poisoned samples, a strip of images.

Built on matplotlib's Figure, never on pyplot's global state: no window, no figure left open. Colours are
Okabe and Ito's, which stay apart for colour-blind readers; lines differ in marker and style as well.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from fedmd.report.detector import detector_name, threshold_label, with_unit
from fedmd.report.figures.examples import write_strip
from fedmd.report.files import TRUTH
from fedmd.report.recorder import read_metrics, read_verdicts
from fedmd.report.truth import Truth
from fedmd.types import Json, Strip

BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"
SHADES = {"clean": "#FFFFFF", "accumulative": "#EBEBEB", "trigger": "#CCCCCC", "recovery": "#F6F6F6"}
NARROW = 0.15  # share of the axis below which the name of a phase moves up, out of its neighbours' way
BAND = (0.1, 0.5, 0.9)  # quantiles: lower edge, median, upper edge
ATTACK_SUCCESS = "attack success: stamped, taken for the target"
SPREAD = "samples: median and 10–90 %"
LOG_RATIO = 30.0  # largest over smallest positive value from which a log scale reads better
LOG_SPAN = 1e5  # what a log scale shows at most: rounding errors around 0 are no news
LOG_DENSE = 1e3  # largest over smallest up to which a log scale has ticks between the powers of ten
DPI = 160


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
    axis.set_ylabel("Test accuracy (%)")
    if any(row.get("attack_success") is not None for row in evaluated):
        success = [np.nan if (rate := row["attack_success"]) is None else 100 * rate for row in evaluated]
        axis.plot(rounds, success, color=VERMILLION, marker="^", linestyle="--", markersize=3.5, label=ATTACK_SUCCESS)
        axis.set_ylabel("Share of test images (%)")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def score_figure(verdicts: pd.DataFrame, truth: Truth, name: str, threshold: str = "threshold") -> Figure:
    """The detector's score (nats) of clean and poisoned samples over rounds: median, 10–90 % band, the threshold.

    `verdicts` of read_verdicts; `name` is the score's, `threshold` what the legend calls the threshold. Log scale
    where the values span more than a factor of LOG_RATIO.
    """
    figure, axis = single_axis()
    phases = verdicts[["round", "phase"]].drop_duplicates()
    shade_phases(axis, list(phases.itertuples(index=False, name=None)))
    poisoned = truth.of(verdicts)
    seen = verdicts["round"]
    rounds = np.arange(seen.min(), seen.max() + 1) if len(seen) else np.arange(0)
    drawn = [
        draw_band(axis, verdicts[~poisoned], rounds, color=BLUE, marker="o", label="clean"),
        draw_band(axis, verdicts[poisoned], rounds, color=VERMILLION, marker="^", label="poisoned"),
    ]
    thresholds = verdicts.groupby("round")["threshold"].first().reindex(rounds).to_numpy(np.float64)
    if np.isfinite(thresholds).any():
        axis.step(rounds, thresholds, where="mid", color=BLACK, linestyle="--", label=threshold)
        drawn.append(thresholds)
    axis.set_ylabel(with_unit(name))
    values = np.concatenate([item.ravel() for item in drawn])
    positive = values[np.isfinite(values) & (values > 0)]
    if not np.isfinite(values).any():
        axis.text(0.5, 0.5, f"no {name.lower()} measured in this run", transform=axis.transAxes, ha="center")
        axis.set_yticks([])
        return figure
    if len(positive) and positive.max() > LOG_RATIO * positive.min():
        axis.set_yscale("log", nonpositive="clip")
        plain_log_ticks(axis.yaxis, positive.max() / positive.min())
        axis.set_ylim(max(positive.min(), positive.max() / LOG_SPAN) / 1.5, positive.max() * 1.5)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, title=SPREAD, title_fontsize=8.5)
    return figure


def strip_figure(strip: Strip) -> Figure:
    """Rows clean / poisoned / corrected, columns the samples; uint8 [n, C, H, W], C = 1 grey or 3 RGB.

    Raises:
        ValueError: the three parts differ in shape, are empty, or C is neither 1 nor 3.
    """
    rows = {"clean": strip.clean, "poisoned": strip.poisoned, "corrected": strip.corrected}
    shapes = {images.shape for images in rows.values()}
    n, channels = strip.clean.shape[:2]
    if len(shapes) != 1 or n == 0 or channels not in (1, 3):
        raise ValueError(f"a strip is three times [n >= 1, 1 or 3, H, W], not {sorted(shapes)}")
    figure = Figure(figsize=(0.9 + 0.85 * n, 0.1 + 0.85 * 3), dpi=DPI, layout="constrained")
    axes = figure.subplots(3, n, squeeze=False)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        line[0].set_ylabel(name)
        for image, axis in zip(images, line, strict=True):
            axis.imshow(image.transpose(1, 2, 0).squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
    return figure


def write_figures(folder: Path, strip: Strip | None, detector: str, stopping: str) -> list[Path]:
    """Save accuracy.png, discrepancy.png and, given a strip, strip.png of the run in `folder`; their paths.

    `detector` and `stopping` are the defence's settings; discrepancy.png shows that detector, and names it. The
    strip's arrays go into strip.npz beside them. Without truth.json every sample counts as clean.
    """
    truth = Truth.read(folder) if (folder / TRUTH).exists() else Truth((), ())
    columns = ["round", "phase", "client", "index", "before", "threshold"]
    verdicts = read_verdicts(folder, columns)
    figures = {
        "accuracy.png": accuracy_figure(read_metrics(folder)),
        "discrepancy.png": score_figure(verdicts, truth, detector_name(detector), threshold_label(stopping)),
    }
    if strip is not None:
        figures["strip.png"] = strip_figure(strip)
        write_strip(folder, strip)
    for name, figure in figures.items():
        figure.savefig(folder / name)
    return [folder / name for name in figures]


def single_axis() -> tuple[Figure, Axes]:
    """A figure with one clean axis over rounds."""
    figure = Figure(figsize=(6.4, 3.6), dpi=DPI, layout="constrained")
    axis = figure.add_subplot()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_xlabel("Round")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axis


def plain_log_ticks(axis: Axis, ratio: float) -> None:
    """Ticks of a log scale written 0.1, 1, 10, with 2 and 5 between them where `ratio`, largest over smallest, is low.

    No powers of ten: they are mathematical typesetting, which an SVG cannot leave to the reader's own font.
    """
    axis.set_major_locator(LogLocator(subs=(1.0,) if ratio > LOG_DENSE else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def shade_phases(axis: Axes, rounds: Sequence[tuple[int, str]]) -> None:
    """Shade each run of equal phases in `rounds` (round, phase) and name it above."""
    spans = [[number for number, _ in group] for _, group in groupby(rounds, key=lambda item: item[1])]
    names = [name for name, _ in groupby(phase for _, phase in rounds)]
    raised = False
    for numbers, name in zip(spans, names, strict=True):
        start, end = min(numbers) - 0.5, max(numbers) + 0.5
        raised = not raised and len(numbers) < NARROW * len(rounds)
        axis.axvspan(start, end, color=SHADES[name], linewidth=0, zorder=0)
        axis.annotate(
            name,
            ((start + end) / 2, 1.0),
            (0, 14 if raised else 3),
            xycoords=axis.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            fontsize=8.5,
        )
    if rounds:
        axis.set_xlim(min(number for number, _ in rounds) - 0.5, max(number for number, _ in rounds) + 0.5)


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
    return quantiles
