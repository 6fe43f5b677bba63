"""Headline numbers of comparisons and sweeps."""

from collections.abc import Sequence

from fedmd.report.html.content import Card
from fedmd.report.table import Cell, Estimate, cell_text, percent
from fedmd.types import Json

MOST = 6


def comparison_cards(comparison: Json) -> list[Card]:
    """Final accuracy of the two anchors, and of each defence under the attack that hurts it most."""
    entries = comparison["arms"]
    cards = [
        Card(arm, in_percent(entries[arm]["accuracy"]["final"]), note)
        for arm, note in ((comparison["baseline"], "nobody attacks"), (comparison["frozen"], "no online learning"))
        if arm in entries
    ]
    for worst in comparison["worst"].values():
        entry = entries[worst["arm"]]
        parts = ["attacked"]
        if entry["kept_gain"]["mean"] is not None:
            parts.append(f"kept gain {100 * entry['kept_gain']['mean']:.0f} %")
        if entry["clean_cost"]["mean"] is not None:
            parts.append(f"clean cost {100 * entry['clean_cost']['mean']:z.1f} points")
        cards.append(Card(worst["arm"], in_percent(worst), "; ".join(parts)))
    return cards[:MOST]


def sweep_cards(rows: Sequence[dict[str, Cell]]) -> list[Card]:
    """The best and the worst arm by final accuracy, and the widest detection."""
    ends = [(row["final"], row["arm"]) for row in rows]
    known = [(cell, str(arm)) for cell, arm in ends if isinstance(cell, Estimate) and cell.mean is not None]
    cards = [Card("Arms", str(len(rows)), "runs that differ only in their seed are one arm")]
    if known:
        best, worst = max(known, key=lambda item: item[0].mean or 0), min(known, key=lambda item: item[0].mean or 0)
        cards.append(Card("Highest final accuracy", f"{cell_text(best[0])} %", best[1]))
        cards.append(Card("Lowest final accuracy", f"{cell_text(worst[0])} %", worst[1]))
    return cards


def in_percent(interval: Json) -> str:
    """`87.3 ± 1.2 %`."""
    return f"{cell_text(percent(interval))} %"
