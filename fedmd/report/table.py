"""Tables for the terminal, for Markdown and for LaTeX, from one set of formatted cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedmd.types import Json

MISSING = "–"


@dataclass(frozen=True)
class Estimate:
    """A number for a table: mean ± ci95, shown times `scale` with `digits` decimals."""

    mean: float | None
    ci95: float | None = None
    scale: float = 1.0
    digits: int = 3


Cell = str | Estimate
Row = Mapping[str, Cell]


def percent(interval: Json) -> Estimate:
    """A fraction in [0, 1] (or a difference of two) from `mean_interval`, to be shown in %: `87.3 ± 1.2`."""
    return Estimate(interval["mean"], interval["ci95"], scale=100.0, digits=1)


def plain(interval: Json) -> Estimate:
    """A number from `mean_interval`, to be shown as it is: `0.973 ± 0.012`."""
    return Estimate(interval["mean"], interval["ci95"])


def cell_text(cell: Cell) -> str:
    """`87.3 ± 1.2`, `87.3` without an interval, an en dash without a mean; text as it is."""
    if isinstance(cell, str):
        return cell
    if cell.mean is None:
        return MISSING
    mean = number(cell.mean * cell.scale, cell.digits)
    return mean if cell.ci95 is None else f"{mean} ± {number(cell.ci95 * cell.scale, cell.digits)}"


def number(value: float, digits: int) -> str:
    """`value` with `digits` decimals and no negative zero."""
    return f"{value:z.{digits}f}"


def layout(rows: Sequence[Row]) -> tuple[list[str], list[list[str]], list[bool]]:
    """Column names in order of first appearance, the cells' texts by row, and which columns are numbers."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[cell_text(row.get(name, Estimate(None))) for name in names] for row in rows]
    numeric = [not any(isinstance(row.get(name), str) for row in rows) for name in names]
    return names, texts, numeric


def terminal(rows: Sequence[Row], caption: str = "") -> str:
    """Aligned text: words to the left, numbers to the right, the caption below."""
    names, texts, numeric = layout(rows)
    widths = [max(len(line[i]) for line in [names, *texts]) for i in range(len(names))]

    def aligned(line: list[str]) -> str:
        cells = zip(line, widths, numeric, strict=True)
        return "  ".join(t.rjust(width) if right else t.ljust(width) for t, width, right in cells).rstrip()

    lines = [aligned(names), "  ".join("─" * width for width in widths), *map(aligned, texts)]
    return "\n".join([*lines, caption] if caption else lines) + "\n"


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
