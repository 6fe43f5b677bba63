"""Where the seconds of each round go, stage by stage."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from fedmd.report.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, shade_phases, single_axis
from fedmd.report.files import WITHIN_TRANSPORT
from fedmd.types import Json

_COLOURS = (BLUE, ORANGE, GREEN, PINK)  # of the longest stages; the others are one


def latency_figure(metrics: Sequence[Json]) -> Figure:
    """Seconds a round, the longest stages one upon the other; `metrics` of read_metrics."""
    figure, axis = single_axis()
    shade_phases(axis, [(row["round"], row["phase"]) for row in metrics])
    stages = {stage for row in metrics for stage in row["wall_s"]} - {WITHIN_TRANSPORT}
    took = {stage: np.array([row["wall_s"].get(stage, 0.0) for row in metrics]) for stage in sorted(stages)}
    longest = sorted(took, key=lambda stage: float(took[stage].sum()), reverse=True)
    shown = {stage: took[stage] for stage in longest[: len(_COLOURS)]}
    if rest := longest[len(_COLOURS) :]:
        shown["all else"] = np.sum([took[stage] for stage in rest], axis=0)
    edges = [row["round"] - 0.5 for row in metrics] + [row["round"] + 0.5 for row in metrics[-1:]]
    below = np.zeros(len(metrics))
    for (stage, values), colour in zip(shown.items(), (*_COLOURS, GREY), strict=False):
        axis.stairs(below + values, edges, baseline=below, fill=True, color=colour, alpha=0.75, label=stage)
        below = below + values
    axis.set_ylim(0, (1.05 * float(below.max()) if len(below) else 0.0) or 1.0)
    axis.set_ylabel("Seconds")
    if shown:
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure
