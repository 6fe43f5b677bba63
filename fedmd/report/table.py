"""Tables for the terminal, for Markdown and for LaTeX, from one set of formatted cells."""

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedmd.types import Json

MISSING = "–"
FEW = 10  # values; of more a mean is normal enough
_ROUNDING = 1e-9  # of a mean of equal numbers
SKEWED = 0.75  # beyond this skewness; of five values it is at most 1.5


@dataclass(frozen=True)
class Estimate:
    """A number for a table: mean ± ci95, or mean [low, high], shown times `scale` with `digits` decimals.

    Of two values that differ, or where it is wider than 1, the whole range of a share, an interval says nothing; then
    the seeds' `values` stand in its place. `bootstrap` [low, high] is shown beside where it is given.
    """

    mean: float | None
    ci95: float | None = None
    scale: float = 1.0
    digits: int = 3
    ends: tuple[float, float] | None = None
    bootstrap: tuple[float, float] | None = None
    values: tuple[float, ...] = ()


Cell = str | Estimate
Row = Mapping[str, Cell]


def percent(interval: Json) -> Estimate:
    """A difference or a ratio of fractions from `mean_interval`, to be shown in %: `87.3 ± 1.2`."""
    return Estimate(interval["mean"], interval["ci95"], scale=100.0, digits=1, values=_seen(interval))


def share(interval: Json) -> Estimate:
    """A fraction in [0, 1], to be shown in %: `87.3 ± 1.2`, or `98.8 [95.3, 100.0]` where the scale ends first."""
    return _cut(percent(interval))


def plain(interval: Json) -> Estimate:
    """A number from `mean_interval`, to be shown as it is: `0.973 ± 0.012`."""
    return Estimate(interval["mean"], interval["ci95"], values=_seen(interval))


def rate(interval: Json) -> Estimate:
    """A number in [0, 1], such as an AUROC, to be shown as it is: `0.973 ± 0.012` or `0.981 [0.960, 1.000]`."""
    return _cut(plain(interval))


def _cut(cell: Estimate) -> Estimate:
    """The cell with its interval cut at 0 and 1, where it crosses one of them and is not wider than both are apart."""
    if cell.mean is None or cell.ci95 is None or width(cell) > 1:
        return cell
    low, high = cell.mean - cell.ci95, cell.mean + cell.ci95
    if low > -_ROUNDING and high < 1 + _ROUNDING:
        return cell
    return replace(cell, ci95=None, ends=(max(low, 0.0), min(high, 1.0)))


def points(interval: Json) -> Estimate:
    """A difference of two shares from `paired_intervals`, in points: `8.1 [5.2, 11.0]`.

    The bootstrap's interval is shown beside that of t where the few differences are skewed, so that t is in doubt.
    """
    values = _seen(interval)
    ends = (interval["low"], interval["high"]) if interval["low"] is not None else None
    resampled = interval["bootstrap"]["low"], interval["bootstrap"]["high"]
    doubtful = resampled[0] is not None and len(values) <= FEW and abs(skewness(values)) > SKEWED
    return Estimate(
        interval["mean"], None, 100.0, 1, ends=ends, bootstrap=resampled if doubtful else None, values=values
    )


def skewness(values: Sequence[float]) -> float:
    """m₃ / m₂^(3/2) with m_k the k-th central moment; 0 where all are equal."""
    mean = sum(values) / len(values)
    second, third = (sum((value - mean) ** k for value in values) / len(values) for k in (2, 3))
    return float(third / second**1.5) if second > 0 else 0.0


def _seen(interval: Json) -> tuple[float, ...]:
    return tuple(value for value in interval.get("values", ()) if value is not None)


def cell_text(cell: Cell) -> str:
    """`87.3 ± 1.2`, `8.1 [5.2, 11.0]`, `87.3` without an interval, `43.2 (9.8, 60.0, 59.7)` with one that says nothing.

    An en dash without a mean; text as it is.
    """
    if isinstance(cell, str):
        return cell
    if cell.mean is None:
        return MISSING

    def shown(value: float) -> str:
        return number(value * cell.scale, cell.digits)

    if cell.values and width(cell) > (0 if len(cell.values) == 2 else 1):
        return f"{shown(cell.mean)} ({', '.join(map(shown, cell.values))})"
    if cell.ends is not None:
        beside = f"; {shown(cell.bootstrap[0])}, {shown(cell.bootstrap[1])}" if cell.bootstrap else ""
        return f"{shown(cell.mean)} [{', '.join(map(shown, cell.ends))}{beside}]"
    return shown(cell.mean) if cell.ci95 is None else f"{shown(cell.mean)} ± {shown(cell.ci95)}"


def width(cell: Estimate) -> float:
    """Of the interval; 0 without one."""
    if cell.ends is not None:
        return cell.ends[1] - cell.ends[0]
    return 2 * cell.ci95 if cell.ci95 is not None else 0.0


def number(value: float, digits: int) -> str:
    """`value` with `digits` decimals and no negative zero."""
    return f"{value:z.{digits}f}"


def layout(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Column names in order of first appearance, the cells' texts by row, and which columns are numbers."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[cell_text(row.get(name, Estimate(None))) for name in names] for row in rows]
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in names]
    return names, texts, numeric


def terminal(rows: Sequence[Row], caption: str = "", columns: int | None = None) -> str:
    """Aligned text: words to the left, numbers to the right, the caption below.

    What does not fit into `columns` of the terminal comes below, each line with its first cell once more.
    """
    names, texts, numeric = layout(rows)
    widths = [max(len(line[i]) for line in [names, *texts]) for i in range(len(names))]

    def aligned(line: list[str], part: list[int]) -> str:
        cells = (line[i].rjust(widths[i]) if numeric[i] else line[i].ljust(widths[i]) for i in part)
        return "  ".join(cells).rstrip()

    parts = [
        "\n".join([aligned(names, part), "  ".join("─" * widths[i] for i in part), *(aligned(t, part) for t in texts)])
        for part in _parts(widths, columns)
    ]
    told = [caption if columns is None else textwrap.fill(caption, columns)] if caption else []
    return "\n".join(["\n\n".join(parts), *told]) + "\n"


def _parts(widths: Sequence[int], columns: int | None) -> list[list[int]]:
    """The columns of a table by number, in parts that are as wide as `columns` at most; each begins with the first."""
    parts = [list(range(min(1, len(widths))))]
    for i in range(1, len(widths)):
        wide = sum(widths[j] + 2 for j in parts[-1]) + widths[i]
        if columns is not None and wide > columns and len(parts[-1]) > 1:
            parts.append([0])
        parts[-1].append(i)
    return parts


def terminal_columns() -> int | None:
    """How wide the terminal is that shows standard output; None where none does."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def markdown(rows: Sequence[Row], caption: str = "") -> str:
    """A GitHub-flavoured table, the caption below."""
    names, texts, numeric = layout(rows)

    def piped(line: list[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in line) + " |"

    rule = "|" + "|".join("---:" if right else ":---" for right in numeric) + "|"
    lines = [piped(names), rule, *map(piped, texts)]
    return "\n".join([*lines, "", caption] if caption else lines) + "\n"


LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{symbol: "\\" + symbol for symbol in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "ε": r"$\varepsilon$",
    "φ": r"$\varphi$",
    "τ": r"$\tau$",
}


def latex(rows: Sequence[Row], caption: str = "") -> str:
    r"""A booktabs tabular (\usepackage{booktabs}), inside a table environment when there is a caption."""
    names, texts, numeric = layout(rows)

    def joined(line: list[str]) -> str:
        return " & ".join(map(latex_text, line)) + r" \\"

    columns = "".join("r" if right else "l" for right in numeric)
    lines = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        joined(names),
        r"\midrule",
        *map(joined, texts),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if caption:
        head = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(caption)}}}"]
        lines = [*head, *lines, r"\end{table}"]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """`text` with LaTeX's special characters escaped; a leading minus before a digit is set as one."""
    escaped = "".join(LATEX_ESCAPES.get(character, character) for character in text)
    return f"$-${escaped[1:]}" if escaped[:1] == "-" and escaped[1:2].isdigit() else escaped
