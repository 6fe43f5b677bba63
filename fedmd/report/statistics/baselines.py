"""Every detector's quality side by side, as rows of a table: of one run, and of several arms. Pure; no files.

Summaries from before there were rivals, or of runs without them, make no rows.
"""

from collections.abc import Mapping

from fedmd.report.detector import DISCREPANCY, detector_name
from fedmd.report.table import Cell, Estimate, plain
from fedmd.types import Json

ACTING = ("dsc", "drop", "trim")  # defences that judge by a score
RUN_CAPTION = "Every sample scored by every detector, poisoned against clean; AUROC 0.5 is chance"
ARMS_CAPTION = (
    "AUROC of every detector, sample by sample, poisoned against clean, on what each arm's server received. "
    "Mean ± half width of the 95 % t-interval over seeds."
)


def run_rows(summary: Json) -> list[dict[str, Cell]]:
    """One row a detector, the discrepancy first; the one that the defence goes by says so."""
    detection = summary["detection"]
    if not detection.get("rivals"):
        return []
    used = summary["config"].get("defense", {}).get("detector", "discrepancy")
    acts = summary["defense"]["name"] in ACTING
    return [
        {
            "detector": detector_name(name) + (" (the defence's)" if acts and name == used else ""),
            "AUROC": Estimate(quality["auroc"]),
            "average precision": Estimate(quality["average_precision"]),
            "TPR at FPR ≤ 5 %": Estimate(quality["tpr_at_fpr_05"]),
        }
        for name, quality in {"discrepancy": detection["sample"], **detection["rivals"]}.items()
    ]


def arm_rows(detections: Mapping[str, Json]) -> list[dict[str, Cell]]:
    """One row an arm, one column a detector; `detections[arm]` is a tree of intervals. Unattacked arms are left out."""
    rows: list[dict[str, Cell]] = []
    for arm, detection in detections.items():
        rivals = detection.get("rivals", {})
        if rivals and detection["sample"]["auroc"]["mean"] is not None:
            cells: dict[str, Cell] = {detector_name(name): plain(rival["auroc"]) for name, rival in rivals.items()}
            rows.append({"arm": arm, DISCREPANCY: plain(detection["sample"]["auroc"]), **cells})
    return rows


def comparison_rows(comparison: Json) -> list[dict[str, Cell]]:
    """`arm_rows` of comparison.json."""
    return arm_rows({arm: entry["detection"] for arm, entry in comparison["arms"].items()})
