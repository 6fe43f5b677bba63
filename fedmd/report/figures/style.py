"""What all figures share: colours, axes, phases, scales and legends.

Built on matplotlib's Figure, never on pyplot's global state: no window, no figure left open. Colours are
Okabe and Ito's, which stay apart for colour-blind readers; lines differ in marker and style as well.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

BLUE, VERMILLION, BLACK, GREY = "#0072B2", "#D55E00", "#000000", "#808080"
GREEN, PINK, ORANGE, SKY = "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
SHADES = {"clean": "#FFFFFF", "accumulative": "#EBEBEB", "trigger": "#CCCCCC", "recovery": "#F6F6F6"}
NARROW = 0.26  # share of the axis below which the name of a phase moves up, out of its neighbours' way
LOG_RATIO = 30.0  # largest over smallest positive value from which a log scale reads better
LOG_SPAN = 1e5  # what a log scale shows at most: rounding errors around 0 are no news
LOG_DENSE = 1e3  # largest over smallest up to which a log scale has ticks between the powers of ten
SHORT_NAME, LONGEST_NAME = 18, 50  # characters: two columns of a legend, and all of its width
HOVER = "hover "  # a gid that begins so becomes the title that a browser shows under the pointer, see html/svg.py
MOST_HOVERED = 150  # points of a line: with more, nobody hits the one that is meant, and the page grows
DPI = 160
Style = tuple[str, str, Any]  # colour, marker, line: an arm is told from the others without its colour
STYLES: tuple[Style, ...] = (
    (BLUE, "o", "-"),
    (VERMILLION, "^", "--"),
    (GREEN, "s", "-."),
    (PINK, "v", ":"),
    (ORANGE, "D", (0, (6, 1.5))),
    (SKY, "P", (0, (3, 1, 1, 1))),
    (BLACK, "X", (0, (1, 1))),
)


def styles_of(names: Iterable[str]) -> dict[str, Style]:
    """A style for every name; they repeat after len(STYLES) names."""
    return dict(zip(names, cycle(STYLES)))


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


def hover_points(axis: Axes, xs: Sequence[Any], ys: Sequence[Any], words: Sequence[str]) -> None:
    """Invisible points over those that are drawn, each with the words that a browser shows under the pointer."""
    if len(words) > MOST_HOVERED:
        return
    for x, y, text in zip(xs, ys, words, strict=True):
        (point,) = axis.plot([x], [y], "o", markersize=8, color=BLACK, markeredgewidth=0, alpha=0.0)
        point.set_gid(f"{HOVER}{text}")


def legend_columns(names: Iterable[str]) -> int:
    """One column for long names, two for short ones."""
    return 1 if max(map(len, names), default=0) > SHORT_NAME else 2


def legend_text(name: str) -> str:
    """`name`, shortened, as matplotlib shows it literally: no mathematics between dollars, no hiding underscore."""
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    literal = short.replace("$", r"\$")
    return "\u200b" + literal if literal.startswith("_") else literal
