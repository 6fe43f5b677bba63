"""The two phases of an attack on updates: accuracy by round, and below it the similarity S that the attackers lower."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmd.report.figures.style import DPI, legend_text, shade_phases, styles_of
from fedmd.types import Json


def steering_figure(arms: Mapping[str, Sequence[Sequence[Json]]]) -> Figure:
    """Test accuracy in % of every seed of each arm, and S of eq (4); `arms[name]` are its seeds' metrics.

    A thin line a seed, no means: where a trigger falls is what there is to see. S is drawn where colluders noted it.
    """
    figure = Figure(figsize=(6.4, 4.6), dpi=DPI, layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    styles = styles_of(arms)
    longest = max((metrics for runs in arms.values() for metrics in runs), key=len, default=[])
    shade_phases(upper, [(row["round"], row["phase"]) for row in longest])
    for name, runs in arms.items():
        color, _, line = styles[name]
        for axis, value in ((upper, _accuracy), (lower, _similarity)):
            for i, metrics in enumerate(runs):
                points = [(row["round"], value(row)) for row in metrics if value(row) is not None]
                label = legend_text(name) if axis is upper and i == 0 else None
                xs, ys = [x for x, _ in points], [y for _, y in points]
                axis.plot(xs, ys, color=color, linestyle=line, linewidth=1.1, label=label)
    for axis in (upper, lower):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    upper.set_ylabel("Test accuracy (%)")
    upper.set_ylim(0, 102)
    lower.set_ylabel("S = cos(g_tri, g_val)")
    lower.set_ylim(-1.05, max(0.5, lower.get_ylim()[1]))
    lower.set_xlabel("Round")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=max(1, min(3, len(arms))), frameon=False)
    return figure


def _accuracy(row: Json) -> float | None:
    return None if row["accuracy"] is None else 100 * row["accuracy"]


def _similarity(row: Json) -> float | None:
    value: float | None = row.get("attack", {}).get("similarity")
    return value
