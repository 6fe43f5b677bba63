"""Rounds as they were reported, from a run's files, also while it goes on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fedmd.report.verdicts import ACTIONS, SCHEMA, read_verdicts
from fedmd.types import Drift, Json, Rejection, RoundReport, Verdicts


def recorded_rounds(folder: Path, metrics: Sequence[Json], first: int) -> Iterator[RoundReport]:
    """The reports of `metrics` from the one at `first` on; what no file keeps of a report is not in it.

    `metrics` of read_metrics, perhaps some rounds shorter than it is now. Where no verdicts are left, there are none.
    """
    try:
        verdicts = read_verdicts(folder, skip=first)
    except FileNotFoundError:
        verdicts = pd.DataFrame({name: [] for name in SCHEMA.names})
    by_round = dict(iter(verdicts.groupby("round")))
    for row in metrics[first:]:
        yield _report(row, by_round.get(row["round"], verdicts.iloc[:0]))


def _report(row: Json, verdicts: pd.DataFrame) -> RoundReport:
    scores = {name: verdicts[name].to_numpy(np.float64) for name in ("before", "after", "discrepancy")}
    ids = {name: verdicts[name].to_numpy(np.int64) for name in ("client", "index", "label", "steps")}
    same = np.array_equal(scores["before"], scores["discrepancy"], equal_nan=True)
    drift = row.get("threshold_drift")
    rejections = tuple(Rejection(entry["client"], entry["reason"]) for entry in row["rejections"])
    return RoundReport(
        round=row["round"],
        phase=row["phase"],
        accuracy=row["accuracy"],
        loss=row["loss"],
        verdicts=Verdicts(
            scores["before"],
            scores["after"],
            ids["steps"],
            np.array([ACTIONS.index(action) for action in verdicts["action"]], np.int64),
            row["threshold"],
            discrepancy=None if same else scores["discrepancy"],
            drift=Drift(**drift) if drift else None,
        ),
        clients=ids["client"],
        index=ids["index"],
        labels=ids["label"],
        rejections=rejections,
        bytes_received=row["bytes_received"],
        wall_s=row["wall_s"],
        attack_success=row.get("attack_success"),
        quarantined=tuple(item.client for item in rejections if item.quarantined_since is not None),
        undone=row.get("undone"),
    )
