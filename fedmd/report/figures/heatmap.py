"""Clients by rounds: the detector's mean score of what each client sent, malicious clients marked."""

from itertools import pairwise
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from fedmd.report.figures.style import BLACK, DPI, LOG_RATIO, VERMILLION, plain_log_ticks, shade_phases, single_axis
from fedmd.report.files import Truth
from fedmd.report.scores import Score

NAMED = 40  # rows up to which every one has its id; of more the malicious clients', if these are no more
ROWS = 300  # more clients than fit on a page are shown by some
COLOURS = "cividis"


def client_means(verdicts: pd.DataFrame) -> pd.DataFrame:
    """Mean `before` by client (rows) and round (columns, without gaps); NaN where nothing was measured."""
    measured = verdicts[np.isfinite(verdicts["before"])]
    table = measured.pivot_table(index="client", columns="round", values="before", aggfunc="mean")
    clients = np.unique(verdicts["client"])
    rounds = np.arange(verdicts["round"].min(), verdicts["round"].max() + 1) if len(verdicts) else np.arange(0)
    return table.reindex(index=clients, columns=rounds)


def client_order(clients: NDArray[np.int64], truth: Truth) -> NDArray[np.int64]:
    """Malicious clients first, each group by id."""
    honest = ~np.isin(clients, truth.malicious_clients)
    return clients[np.lexsort((clients, honest))]


def shown_clients(clients: NDArray[np.int64]) -> NDArray[np.int64]:
    """At most ROWS of `clients` (in their order), evenly spaced: groups that stand together keep their shares."""
    if len(clients) <= ROWS:
        return clients
    return clients[np.linspace(0, len(clients) - 1, ROWS).round().astype(np.int64)]


def heat_map_figure(verdicts: pd.DataFrame, truth: Truth, score: Score) -> Figure:
    """The heat map; `verdicts` of read_verdicts, `score` what they have in `before`.

    Malicious clients come first, with a triangle before their id. Dashed boxes are the rounds in which
    they poison. Log colours where the means span more than LOG_RATIO. Of more than ROWS clients there are so many.
    """
    means = client_means(verdicts)
    clients = shown_clients(client_order(means.index.to_numpy(np.int64), truth))
    values = means.loc[clients].to_numpy(np.float64)
    figure, axis = single_axis()
    figure.set_dpi(DPI)
    phases = verdicts[["round", "phase"]].drop_duplicates()
    shade_phases(axis, list(phases.itertuples(index=False, name=None)))
    axis.grid(visible=False)
    if not np.isfinite(values).any():
        axis.text(0.5, 0.5, score.unmeasured, transform=axis.transAxes, ha="center")
        axis.set_yticks([])
        return figure
    first, last = means.columns[0] - 0.5, means.columns[-1] + 0.5
    norm = colour_scale(values)
    image = axis.imshow(
        values,
        cmap=COLOURS,
        norm=norm,
        interpolation="none",
        aspect="auto",
        extent=(first, last, len(clients) - 0.5, -0.5),
    )
    bar: Any = figure.colorbar(image, pad=0.02)
    bar.set_label(fill(f"Mean {score.with_unit.lower()}", 28), labelpad=8)  # a few clients make a low figure
    bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    if isinstance(norm, LogNorm):
        plain_log_ticks(bar.ax.yaxis, bar.vmax / bar.vmin)
    for place, client in enumerate(clients):  # to hover over and to click at
        mean = np.nanmean(values[place]) if np.isfinite(values[place]).any() else np.nan
        band = axis.add_patch(Rectangle((first, place - 0.5), last - first, 1, facecolor=BLACK, alpha=0, linewidth=0))
        band.set_gid(f"client {client}: mean {score.amount(mean)} over the run")
    malicious = np.isin(clients, truth.malicious_clients)
    names = [f"▲ {client}" if bad else str(client) for client, bad in zip(clients, malicious, strict=True)]
    rows = np.arange(len(clients)) if len(clients) <= NAMED else np.flatnonzero(malicious)
    rows = rows if len(rows) <= NAMED else rows[:0]
    axis.set_yticks(rows, [names[row] for row in rows], fontsize=8 if len(rows) <= 20 else 5.5)
    for label, row in zip(axis.get_yticklabels(), rows, strict=True):
        label.set(color=VERMILLION if malicious[row] else BLACK, fontweight="bold" if malicious[row] else "normal")
    axis.tick_params(axis="y", length=0)
    of_all = f", {len(clients)} of {len(means)}" if len(clients) < len(means) else ""
    axis.set_ylabel(("Client (▲ malicious)" if malicious.any() else "Client") + of_all)
    axis.spines[:].set_visible(False)
    if malicious.any():
        axis.axhline(malicious.sum() - 0.5, color=BLACK, linewidth=1)
    for start, end in spans(truth.poisoned_rounds):
        box = (start - 0.5, -0.5), end - start + 1, int(malicious.sum())
        axis.add_patch(Rectangle(*box, fill=False, edgecolor=VERMILLION, linewidth=2, linestyle="--", clip_on=False))
    return figure


def colour_scale(values: NDArray[np.float64]) -> Normalize:
    """Logarithmic where the positive values span more than LOG_RATIO, linear otherwise."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    if len(positive) and positive.max() > LOG_RATIO * positive.min():
        return LogNorm(positive.min(), positive.max(), clip=True)
    return Normalize(finite.min(), finite.max())


def spans(rounds: tuple[int, ...]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    numbers = sorted(set(rounds))
    if not numbers:
        return []
    breaks = [(a, b) for a, b in pairwise(numbers) if b != a + 1]
    return list(zip([numbers[0], *(b for _, b in breaks)], [*(a for a, _ in breaks), numbers[-1]], strict=True))
