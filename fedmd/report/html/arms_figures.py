"""Figures that show several arms at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedmd.report.figures.arms import FEW, arm_accuracy_figure
from fedmd.report.figures.curves import (
    Curve,
    mean_precision_recall,
    mean_roc,
    precision_recall_figure,
    precision_recall_points,
    roc_figure,
    roc_points,
)
from fedmd.report.figures.seeds import final_accuracy_figure, share_figure
from fedmd.report.figures.style import STYLES, Style, legend_columns, styles_of
from fedmd.report.html.content import Block, Note, Plot
from fedmd.report.html.svg import inline_svg
from fedmd.report.results import Arms, Run, flat

LEGEND_ROW = 0.22  # inches
MOST_ROWS = 24  # arms in one figure of dots
MOST_FIGURES = 6  # of a kind; further arms are in the table only
T = TypeVar("T")
Points = Callable[[NDArray[np.float64], NDArray[np.bool_]], Curve | None]


def final_blocks(finals: Mapping[str, Mapping[int, float]], arms: Arms) -> list[Block]:
    """Final accuracies, every seed a dot; and over the share of attackers, where the arms differ in it."""
    known = {arm: seeds for arm, seeds in finals.items() if seeds}
    if not known:
        return []
    blocks: list[Block] = []
    for i, start in enumerate(range(0, len(known), MOST_ROWS)):
        part = dict(list(known.items())[start : start + MOST_ROWS])
        alt = f"Final accuracy of {', '.join(part)}, seed by seed. The table of results has the numbers."
        svg = inline_svg(final_accuracy_figure(part), f"final-{i}", alt, 0.6 + 0.42 * len(part))
        blocks.append(Plot("Final accuracy", svg, "Every dot is a seed, the bar their mean."))
    lines = over_shares(known, arms)
    if any(len(shares) > 1 for shares in lines.values()):
        styles = styles_of(lines)
        for i, names in enumerate(in_groups(list(lines))):
            group = {name: lines[name] for name in names}
            alt = f"Final accuracy over the share of attackers of {', '.join(group)}."
            tall = 3.1 + LEGEND_ROW * -(-len(group) // legend_columns(group))
            svg = inline_svg(share_figure(group, styles), f"share-{i}", alt, tall)
            blocks.append(Plot("Accuracy over φ", svg, "Means over seeds, joined; every dot is a seed."))
    return blocks[:MOST_FIGURES]


def over_shares(finals: Mapping[str, Mapping[int, float]], arms: Arms) -> dict[str, dict[float, Mapping[int, float]]]:
    """`lines[settings but φ][φ]` of the arms whose runs are there; settings that all share are left out of the name."""
    flats = {}
    for arm in finals:
        if runs := arms.get(arm):
            config = flat(next(iter(runs.values())).summary["config"])
            ignored = ("seed", "runtime.", "audit.", "observability.")
            flats[arm] = {key: value for key, value in config.items() if not key.startswith(ignored)}
    share = "attack.fraction"
    varied = [
        key
        for key in dict.fromkeys(key for config in flats.values() for key in config)
        if key != share and len({repr(config.get(key)) for config in flats.values()}) > 1
    ]
    named = {key.removesuffix(".name") for key in varied if key.endswith(".name")}  # another option has other keys
    varied = [key for key in varied if key.endswith(".name") or key.partition(".")[0] not in named]
    lines: dict[str, dict[float, Mapping[int, float]]] = {}
    for arm, config in flats.items():
        name = ", ".join(f"{key.removesuffix('.name')}={config[key]}" for key in varied if key in config) or "all"
        lines.setdefault(name, {})[float(config.get(share, 0))] = finals[arm]
    return lines


def accuracy_blocks(arms: Arms) -> list[Block]:
    """Accuracy over rounds, one figure for every len(STYLES) arms."""
    metrics = {
        arm: known for arm, runs in arms.items() if (known := [run.metrics for run in runs.values() if run.metrics])
    }
    if not metrics:
        return [Note("The runs' metrics are no longer in the folder.")]
    few = all(len(runs) < FEW for runs in metrics.values())
    spread = "thin lines are the seeds" if few else "the band is the 95 % t-interval"
    caption = f"Mean over seeds; {spread}. Shades are the phases, rounds count from 0."
    return figures("Accuracy over rounds", caption, "accuracy", arms, metrics, arm_accuracy_figure, 3.1)


def curve_blocks(arms: Arms) -> list[Block]:
    """ROC and precision-recall curves of the arms that have poisoned samples, means over the seeds."""
    roc = curves_of(arms, roc_points, mean_roc)
    if not roc:
        return [Note("No arm has poisoned samples that were measured.")]
    curves = curves_of(arms, precision_recall_points, mean_precision_recall)
    caption = "Mean over seeds at equal {}, each arm by what its defence holds against the threshold, one by one."
    return [
        *figures("ROC curves", caption.format("false positive rate"), "roc", arms, roc, roc_figure, 4.1),
        *figures("Precision-recall curves", caption.format("recall"), "pr", arms, curves, precision_recall_figure, 4.1),
    ]


def curves_of(arms: Arms, points: Points, mean: Callable[[Sequence[Curve]], Curve]) -> dict[str, Curve]:
    """The mean curve of each arm that has one."""
    curves = {arm: [points(*scores_of(run)) for run in runs.values()] for arm, runs in arms.items()}
    known = {arm: [curve for curve in found if curve is not None] for arm, found in curves.items()}
    return {arm: mean(found) for arm, found in known.items() if found}


def scores_of(run: Run) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The detector's score (nats) [N] of a run's samples, and which of them were poisoned [N]."""
    verdicts = run.verdicts
    return verdicts["before"].to_numpy(np.float64), run.truth.of(verdicts)


def figures(
    title: str,
    caption: str,
    slug: str,
    arms: Arms,
    values: Mapping[str, T],
    draw: Callable[[Mapping[str, T], Mapping[str, Style]], Figure],
    height: float,
) -> list[Block]:
    """`draw` for every len(STYLES) of the `arms` that have values; an arm looks the same in all of them.

    `height` in inches is without the legend.
    """
    styles = styles_of(arms)
    plots: list[Block] = []
    for i, names in enumerate(in_groups(list(arms))):
        if group := {name: values[name] for name in names if name in values}:
            alt = f"{title} of {', '.join(group)}. The table of results has the numbers."
            tall = height + LEGEND_ROW * -(-len(group) // legend_columns(group))
            plots.append(Plot(title, inline_svg(draw(group, styles), f"{slug}-{i}", alt, tall), caption))
    return plots[:MOST_FIGURES]


def in_groups(names: list[str]) -> Iterator[list[str]]:
    """Groups small enough for one figure."""
    yield from (names[start : start + len(STYLES)] for start in range(0, len(names), len(STYLES)))
