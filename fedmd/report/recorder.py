"""The record of a run, written as it goes on: `metrics.jsonl`, one line a round, and the verdicts of every sample."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from fedmd.report.files import DERIVED, METRICS, SUMMARY, TRUTH, VERDICTS
from fedmd.report.verdicts import PARTS, join_parts, keep_parts, read_part, schema_with, verdict_table, write_part
from fedmd.storage import dumps
from fedmd.types import Action, Json, RoundReport


@dataclass(frozen=True)
class RecordPosition:
    """How far a record goes: `bytes` of metrics.jsonl, and the number of parts with verdicts; and the SHA-256 of each.

    An empty hash is compared with nothing.
    """

    bytes: int = 0
    parts: int = 0
    metrics_sha256: str = ""
    parts_sha256: str = ""


class RunRecorder:
    """Writes every round to disk as it ends, and keeps none of it in memory.

    The verdicts are parts (see `report.verdicts`) until the `with` block ends without an exception; both can be
    read at any time. Opening starts the record of the folder afresh, or, with `after`, goes on from there and forgets
    what came later; an old `summary.json`, which says that a run has finished, goes first. `baselines` names the other
    detectors whose scores get a column each.

        with RunRecorder(folder) as recorder:
            recorder.record(report)

    Raises ValueError on opening, and changes nothing, when the record in the folder does not go as far as `after`, or
    is another up to there.
    """

    def __init__(self, folder: Path, baselines: Sequence[str] = (), *, after: RecordPosition | None = None) -> None:
        self.folder = folder
        self._schema = schema_with(baselines)
        self._metrics: TextIO | None = None
        self._after = after or RecordPosition()
        self._number = 0
        self._metrics_hash, self._parts_hash = hashlib.sha256(), hashlib.sha256()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / PARTS).mkdir(exist_ok=True)
        metrics = self.folder / METRICS
        self._check(metrics)
        keep_parts(self.folder, self._after.parts)
        for stale in (SUMMARY, TRUTH, VERDICTS, *DERIVED):
            (self.folder / stale).unlink(missing_ok=True)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._metrics.truncate(self._after.bytes)
        self._number = self._after.parts
        return self

    def _check(self, metrics: Path) -> None:
        """Read the record up to where it goes on."""
        if self._after.bytes and not metrics.exists():
            raise ValueError(f"{metrics} is missing")
        written = metrics.read_bytes()[: self._after.bytes] if self._after.bytes else b""
        if len(written) < self._after.bytes:
            raise ValueError(f"{metrics} is shorter than it was")
        self._metrics_hash.update(written)
        for number in range(self._after.parts):
            self._parts_hash.update(read_part(self.folder, number))
        if self._after.metrics_sha256 not in ("", self._metrics_hash.hexdigest()):
            raise ValueError(f"{metrics} is not as it was written")
        if self._after.parts_sha256 not in ("", self._parts_hash.hexdigest()):
            raise ValueError(f"{self.folder / PARTS} is not as it was written")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if error is None:
            join_parts(self.folder, self._schema)

    def record(self, report: RoundReport) -> None:
        """Append one round to both files; `metrics.jsonl` is flushed, so that others can follow along.

        Raises:
            RuntimeError: outside the `with` block.
            ValueError: arrays of the report differ in length; then neither file has changed.
        """
        if self._metrics is None:
            raise RuntimeError("record() belongs inside `with RunRecorder(folder) as recorder:`")
        table, line = verdict_table(report, self._schema), dumps(round_metrics(report)) + "\n"
        write_part(self.folder, self._number, table)
        self._parts_hash.update(read_part(self.folder, self._number))
        self._number += 1
        self._metrics.write(line)
        self._metrics.flush()
        self._metrics_hash.update(line.encode())

    def flush(self) -> RecordPosition:
        """How far the record goes; that much is on disk when this returns."""
        if self._metrics is None:
            raise RuntimeError("flush() belongs inside `with RunRecorder(folder) as recorder:`")
        os.fsync(self._metrics.fileno())
        size = os.fstat(self._metrics.fileno()).st_size
        return RecordPosition(size, self._number, self._metrics_hash.hexdigest(), self._parts_hash.hexdigest())


def round_metrics(report: RoundReport) -> Json:
    """One line of metrics.jsonl. `wall_s` comes last: two runs of a seed are equal without that one key.

    Shares and steps are means over all samples of the round, discrepancies (nats) over the measured ones;
    None where there are none. `clients` counts the clients whose samples arrived. `threshold_drift` is {rate, promised}
    in rounds in which the threshold's promise is broken; `undone`, only there: why the model is as it was before;
    `alarms`, where there are any: the clients put in quarantine; `canary`, {value, alarm}, where the server keeps one;
    `attack`: what colluders noted.
    """
    verdicts = report.verdicts
    return {
        "round": report.round,
        "phase": report.phase,
        "accuracy": report.accuracy,
        "attack_success": report.attack_success,
        "loss": report.loss,
        "threshold": verdicts.threshold,
        "threshold_drift": None if verdicts.drift is None else asdict(verdicts.drift),
        "samples": len(verdicts.before),
        "clients": len(np.unique(report.clients)),
        "discrepancy": discrepancy_statistics(
            verdicts.before if verdicts.discrepancy is None else verdicts.discrepancy
        ),
        "corrected_share": mean_or_none(verdicts.actions == Action.CORRECTED),
        "rejected_share": mean_or_none(verdicts.actions == Action.REJECTED),
        "mean_steps": mean_or_none(verdicts.steps),
        "rejections": [{"client": item.client, "reason": item.reason} for item in report.rejections],
        **({"alarms": list(report.alarms)} if report.alarms else {}),
        **({} if report.undone is None else {"undone": report.undone}),
        "bytes_received": report.bytes_received,
        **({} if verdicts.canary is None else {"canary": asdict(verdicts.canary)}),
        **({"attack": dict(report.attack)} if report.attack else {}),
        "wall_s": dict(report.wall_s),
    }


def discrepancy_statistics(scores: NDArray[np.float64]) -> Json:
    """Mean, median and 95 % quantile (nats) of the scores [N] that are not NaN."""
    measured = scores[~np.isnan(scores)]
    if not len(measured):
        return {"mean": None, "q50": None, "q95": None}
    with np.errstate(invalid="ignore"):  # infinities of a diverged model end up as None
        q50, q95 = np.quantile(measured, [0.5, 0.95])
    return {"mean": float(measured.mean()), "q50": float(q50), "q95": float(q95)}


def mean_or_none(values: NDArray[Any]) -> float | None:
    """Mean of `values` [N]; None for N = 0."""
    return float(np.mean(values)) if len(values) else None
