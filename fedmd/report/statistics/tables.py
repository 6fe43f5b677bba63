"""The tables of a run and of a study, as rows for `report.table` and for the HTML page. Pure; no files."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from fedmd.report.scores import DISCREPANCY, Score, scores_of
from fedmd.report.statistics.comparison import arm_label
from fedmd.report.statistics.intervals import mean_interval
from fedmd.report.table import Cell, Estimate, percent, points, rate, share, width
from fedmd.types import Json

WIDE = "Of two seeds, or where an interval would be wider than the scale, the seeds' values stand in its place."
CUT = "[low, high]: the interval, cut where the scale ends. "
NOTHING: Json = {"mean": None, "ci95": None}  # the interval of an empty cell
DIFFERENCES_CAPTION = (
    "Final accuracy minus that of other arms, in points, seed by seed: mean [95 % t-interval; of few and skewed "
    "differences also the bootstrap's]. Undefended: under the same attack. Recovered: the share of what the attack "
    "costs the undefended server that this one has back, in %, where that is known to within the scale; above 100 it "
    "ends higher than where nobody attacks, below 0 lower than undefended. " + WIDE
)
ARMS_CAPTION = (
    "Accuracies and their differences, clean cost, attack success, corrected and rejected shares and worst (final "
    "accuracy under the attack that hurts a defence most) in %; "
    "AUROC of what the defence holds against its threshold, poisoned against clean samples. "
    "Mean ± half width of the 95 % t-interval over seeds. " + CUT + WIDE
)
CROSSTAB_DIFFERENCES_CAPTION = (
    "Final accuracy minus that of the undefended server under the same attack, and minus that of the undefended server "
    "that nobody attacks, in points, seed by seed: mean [95 % t-interval; of few and skewed differences also the "
    "bootstrap's]. " + WIDE
)
CROSSTAB_CAPTION = (
    "In %, mean ± half width of the 95 % t-interval over seeds. TPR and FPR: shares of the poisoned and of the clean "
    "that a defence corrected or rejected, where it judges them one by one. " + CUT + WIDE
)
RUN_DETECTORS_CAPTION = "Every sample scored by every detector, poisoned against clean; AUROC 0.5 is chance"
DETECTORS_CAPTION = (
    "AUROC of every detector, sample by sample, poisoned against clean, on what each arm's server received. "
    "Mean ± half width of the 95 % t-interval over seeds. " + CUT + WIDE
)
Pick = Callable[[str], Estimate]
Rows = list[dict[str, Cell]]
Tables = dict[str, Rows]

# What of an arm's entry in comparison.json a crosstab shows, by its title
LEVELS: dict[str, Callable[[Json], Json]] = {
    "final accuracy": lambda entry: dict(entry["accuracy"]["final"]),
    "attack success": lambda entry: dict(entry["attack_success"]["final"]) if "attack_success" in entry else {},
    "TPR": lambda entry: dict(entry["detection"].get("flagged", {}).get("tpr", {})),
    "FPR": lambda entry: dict(entry["detection"].get("flagged", {}).get("fpr", {})),
}


def differences_table(comparison: Json) -> list[dict[str, Cell]]:
    """One row an arm: its final accuracy minus that of the arms it is measured by; no rows without any of them.

    These are the arm that is attacked alike and undefended, the baseline and the frozen one.
    """
    differences, undefended = comparison.get("paired", {}), comparison.get("undefended", {})
    anchors = {"no attack": comparison["baseline"], "frozen": comparison["frozen"]}
    rows: list[dict[str, Cell]] = []
    for arm, entry in comparison["arms"].items():
        others = {"undefended": undefended.get(arm), **anchors}
        cells: dict[str, Cell] = {
            f"minus {name}": points(found["final"])
            for name, other in others.items()
            if (found := differences.get(arm, {}).get(other))
        }
        if cells:
            back = percent(entry["recovered"])  # of a loss about as large as its noise it is no number to look at
            recovered = back if arm != undefended.get(arm) and width(back) <= 1 else Estimate(None)
            rows.append({"arm": arm_label(comparison, arm), **cells, "recovered": recovered})
    columns = [name for name in ("arm", *(f"minus {name}" for name in ("undefended", *anchors)), "recovered")]
    return without_empty_columns(rows, columns)


def without_empty_columns(rows: Sequence[Mapping[str, Cell]], columns: Iterable[str]) -> list[dict[str, Cell]]:
    """The rows, with those of the columns that have something to read."""
    known = [name for name in columns if any(is_known(row.get(name)) for row in rows)]
    return [{name: row.get(name, Estimate(None)) for name in known} for row in rows]


def is_known(cell: Cell | None) -> bool:
    """Whether there is something to read in it."""
    return cell is not None and (isinstance(cell, str) or cell.mean is not None)


def arms_table(comparison: Json) -> list[dict[str, Cell]]:
    """One row an arm of comparison.json; columns without any number are left out.

    A column `worst` joins them when some defence met more than one attack.
    """
    entries = comparison["arms"]
    attacked = [entry["info"]["defense"] for entry in entries.values() if entry["info"]["attacked"]]
    rows: list[dict[str, Cell]] = []
    for arm, entry in entries.items():
        accuracy, defense = entry["accuracy"], entry["info"]["defense"]
        row: dict[str, Cell] = {
            "arm": arm_label(comparison, arm),
            "final": share(accuracy["final"]),
            "before attack": share(accuracy["before_attack"]),
            "accumulation loss": percent(entry["accumulation_loss"]),
            "trigger drop": percent(entry["trigger_drop"]),
            "clean cost": percent(entry["clean_cost"]),
            "AUROC": rate(detector_auroc(entry["detection"])),
            "corrected": share(entry["defense"]["corrected_share"]),
            "rejected": share(entry["defense"]["rejected_share"]),
        }
        if "attack_success" in entry:
            row["attack success"] = share(entry["attack_success"]["final"])
        if len(attacked) > len(set(attacked)):
            row["worst"] = share(comparison["worst"].get(defense, NOTHING))
        rows.append(row)
    return without_empty_columns(rows, dict.fromkeys(name for row in rows for name in row))


def detector_auroc(detection: Json) -> Json:
    """The interval of detection.detector.sample.auroc; where a summary is too old for it, of detection.sample.auroc."""
    old: Json = detection["sample"]["auroc"]
    new = detection["detector"]["sample"]["auroc"] if "detector" in detection else old
    return mean_interval([b if a is None else a for a, b in zip(new["values"], old["values"], strict=True)])


def crosstabs(comparison: Json) -> Tables:
    """The levels of a study of attacks (rows) by defences (columns), by title; none for another study.

    Rows and columns without any number are left out, and so is a table without any.
    """
    entries = comparison["arms"]

    def level_of(pick: Callable[[Json], Json]) -> Pick:
        return lambda arm: share(interval) if (interval := pick(entries[arm])) else Estimate(None)

    tables = _crosstabs(comparison, {title: level_of(pick) for title, pick in LEVELS.items()})
    if final := tables.get("final accuracy"):
        final.append(_worst_attacks(entries, comparison["table"], shown=list(final[0])))
    return tables


def crosstab_differences(comparison: Json) -> Tables:
    """The final accuracies of such a study minus those of the undefended server, attacked alike and not at all."""
    differences, baseline = comparison.get("paired", {}), comparison.get("baseline")
    nobody_attacks = {arm: baseline for arm, entry in comparison["arms"].items() if not entry["info"]["attacked"]}
    undefended = {**nobody_attacks, **comparison.get("undefended", {})}

    def minus(other_of: Callable[[str], str | None]) -> Pick:
        def pick(arm: str) -> Estimate:
            found = differences.get(arm, {}).get(other_of(arm))
            return points(found["final"]) if found else Estimate(None)

        return pick

    picks = {"minus undefended": minus(undefended.get), "minus no attack": minus(lambda arm: baseline)}
    return _crosstabs(comparison, picks)


def _crosstabs(comparison: Json, picks: Mapping[str, Pick]) -> Tables:
    layout = comparison.get("table")
    if not layout:
        return {}
    tables = {title: _crosstab(comparison["arms"], layout, title, pick) for title, pick in picks.items()}
    return {title: rows for title, rows in tables.items() if rows}


def _crosstab(entries: Json, layout: Json, title: str, pick: Pick) -> Rows:
    cells: dict[str, dict[str, Estimate]] = {
        row: {column: pick(arm) for column, arm in line.items() if arm in entries}
        for row, line in layout["cells"].items()
    }
    columns = [
        column
        for column in layout["columns"]
        if any(line.get(column, Estimate(None)).mean is not None for line in cells.values())
    ]
    return [
        {
            title: layout["rows"][row],
            **{layout["columns"][column]: line.get(column, Estimate(None)) for column in columns},
        }
        for row, line in cells.items()
        if any(line[column].mean is not None for column in columns if column in line)
    ]


def _worst_attacks(entries: Json, layout: Json, shown: Sequence[str]) -> dict[str, Cell]:
    """For each column `shown` its lowest mean final accuracy over the attacked rows."""
    line: dict[str, Cell] = {"final accuracy": "worst attack"}
    for column, label in layout["columns"].items():
        if label not in shown:
            continue
        arms = [cells[column] for cells in layout["cells"].values() if column in cells]
        attacked = [entries[arm] for arm in arms if arm in entries and entries[arm]["info"]["attacked"]]
        finals = [entry["accuracy"]["final"] for entry in attacked if entry["accuracy"]["final"]["mean"] is not None]
        line[label] = share(min(finals, key=lambda final: final["mean"])) if finals else Estimate(None)
    return line


def run_detectors_table(summary: Json) -> list[dict[str, Cell]]:
    """One row a detector of a run, the discrepancy first; the one that the defence goes by says so."""
    detection, scores = summary["detection"], scores_of(summary)
    if not detection.get("baselines"):
        return []
    qualities = {DISCREPANCY: detection["sample"], **detection["baselines"]}
    if "detector" in detection:
        qualities.setdefault(scores["held"], detection["detector"]["sample"])  # a plug-in's is no baseline
    judging = scores["held"] if scores["judges"] else None
    return [
        {
            "detector": Score.of(name, scores["detectors"]).label + (" (the defence's)" if name == judging else ""),
            "AUROC": Estimate(quality["auroc"]),
            "average precision": Estimate(quality["average_precision"]),
            "TPR at FPR ≤ 5 %": Estimate(quality["tpr_at_fpr_05"]),
        }
        for name, quality in qualities.items()
    ]


def detectors_table(detections: Mapping[str, Json], detectors: Json) -> list[dict[str, Cell]]:
    """One row an attacked arm, one column a detector.

    `detections[label]` is a tree of intervals, `detectors` has the detectors' labels, as in a summary's `scores`.
    """
    rows: list[dict[str, Cell]] = []
    for arm, detection in detections.items():
        baselines = detection.get("baselines", {})
        if baselines and detection["sample"]["auroc"]["mean"] is not None:
            qualities = {DISCREPANCY: detection["sample"], **baselines}
            cells = {Score.of(name, detectors).label: rate(quality["auroc"]) for name, quality in qualities.items()}
            rows.append({"arm": arm, **cells})
    return rows


def comparison_detectors_table(comparison: Json) -> list[dict[str, Cell]]:
    """`detectors_table` of comparison.json."""
    return detectors_table(
        {arm_label(comparison, arm): entry["detection"] for arm, entry in comparison["arms"].items()},
        comparison.get("detectors", {}),
    )
