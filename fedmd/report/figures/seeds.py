"""Final accuracies with every seed a dot: arm by arm, and over the share of attackers."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedmd.report.figures.style import BLUE, HOVER, Style, legend_columns, legend_text, single_axis

Seeds = Mapping[int, float]  # accuracy in [0, 1] by seed


def final_accuracy_figure(arms: Mapping[str, Seeds]) -> Figure:
    """One row an arm: a dot a seed, a bar for the mean, and above them the name, which may be as long as the scale."""
    figure, axis = single_axis()
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color="#DDDDDD", linewidth=0.6)
    for row, (name, seeds) in enumerate(arms.items()):
        place = len(arms) - 1 - row
        for seed, value in seeds.items():
            (dot,) = axis.plot([100 * value], [place], "o", color=BLUE, markersize=5, alpha=0.6, markeredgewidth=0)
            dot.set_gid(f"{HOVER}{name}, seed {seed}: {100 * value:.1f} %")
        if seeds:
            mean = 100 * float(np.mean([*seeds.values()]))
            (bar,) = axis.plot([mean, mean], [place - 0.2, place + 0.2], color="#000000", linewidth=1.8)
            bar.set_gid(f"{HOVER}{name}, mean of {len(seeds)}: {mean:.1f} %")
        axis.text(0, place + 0.3, legend_text(name), transform=axis.get_yaxis_transform(), fontsize="small")
    axis.set_yticks([])
    axis.set_ylim(-0.4, len(arms) - 0.3)
    axis.spines["left"].set_visible(False)
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.set_xlabel("Final test accuracy (%)")
    return figure


def share_figure(lines: Mapping[str, Mapping[float, Seeds]], styles: Mapping[str, Style]) -> Figure:
    """Final accuracy over the share of attackers φ: `lines[name][φ]`, the means joined, every seed a dot."""
    figure, axis = single_axis()
    for name, by_share in lines.items():
        color, marker, line = styles[name]
        shares = sorted(by_share)
        means = [100 * float(np.mean([*by_share[share].values()])) for share in shares]
        axis.plot(shares, means, color=color, marker=marker, linestyle=line, markersize=4, label=legend_text(name))
        for share in shares:
            for seed, value in by_share[share].items():
                (dot,) = axis.plot([share], [100 * value], marker, color=color, markersize=3, alpha=0.45)
                dot.set_gid(f"{HOVER}{name}, φ = {share:g}, seed {seed}: {100 * value:.1f} %")
    axis.set_xlabel("Share of attackers φ")
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.set_ylabel("Final test accuracy (%)")
    figure.legend(loc="outside lower center", ncols=legend_columns(lines), frameon=False)
    return figure
