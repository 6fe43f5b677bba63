"""A study that is a table, rows of attacks by columns of defences, shown as one."""

from collections.abc import Callable, Sequence

from fedmd.report.table import Cell, Estimate, percent
from fedmd.types import Json

CROSSED_CAPTION = (
    "In %, mean ± half width of the 95 % t-interval over seeds. TPR and FPR: shares of the poisoned and of the clean "
    "that a defence corrected or rejected, where it judges them one by one."
)
Pick = Callable[[Json], Json]

# The tables, by title: what of an arm's entry in comparison.json is shown
MEASURES: dict[str, Pick] = {
    "final accuracy": lambda entry: dict(entry["accuracy"]["final"]),
    "attack success": lambda entry: dict(entry["attack_success"]["final"]) if "attack_success" in entry else {},
    "TPR": lambda entry: dict(entry["detection"].get("flagged", {}).get("tpr", {})),
    "FPR": lambda entry: dict(entry["detection"].get("flagged", {}).get("fpr", {})),
}


def crossed_tables(comparison: Json) -> dict[str, list[dict[str, Cell]]]:
    """Rows for `table.terminal`, `markdown` or `latex` by title; none for a study that is no table.

    Rows and columns without any number are left out, and so is a table without any.
    """
    crossed = comparison.get("table")
    if not crossed:
        return {}
    tables = {title: _rows(comparison["arms"], crossed, title, pick) for title, pick in MEASURES.items()}
    if final := tables["final accuracy"]:
        final.append(_worst(comparison, crossed, [column for column in final[0] if column != "final accuracy"]))
    return {title: rows for title, rows in tables.items() if rows}


def _worst(comparison: Json, crossed: Json, columns: Sequence[str]) -> dict[str, Cell]:
    """For each column its lowest mean final accuracy over the attacked rows."""
    line: dict[str, Cell] = {"final accuracy": "worst attack"}
    for column in columns:
        arms = [cells[column] for cells in crossed["cells"].values() if column in cells]
        entries = [comparison["arms"][arm] for arm in arms if arm in comparison["arms"]]
        met = [entry["accuracy"]["final"] for entry in entries if entry["info"]["attacked"]]
        measured = [final for final in met if final["mean"] is not None]
        line[column] = percent(min(measured, key=lambda final: final["mean"])) if measured else Estimate(None)
    return line


def _rows(entries: Json, crossed: Json, title: str, pick: Pick) -> list[dict[str, Cell]]:
    cells: dict[str, dict[str, Estimate]] = {
        row: {
            column: percent(interval) if (interval := pick(entries[arm])) else Estimate(None)
            for column, arm in line.items()
            if arm in entries
        }
        for row, line in crossed["cells"].items()
    }
    columns = [
        column
        for column in crossed["columns"]
        if any(line.get(column, Estimate(None)).mean is not None for line in cells.values())
    ]
    return [
        {title: row, **{column: line.get(column, Estimate(None)) for column in columns}}
        for row, line in cells.items()
        if any(line[column].mean is not None for column in columns if column in line)
    ]
