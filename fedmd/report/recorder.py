"""The audit trail of a run: `metrics.jsonl`, one line a round, and `verdicts.parquet`, one row a sample."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fedmd.report import verdict_parts as parts
from fedmd.report.files import DERIVED, METRICS, SUMMARY, TRUTH, VERDICTS, dumps
from fedmd.types import PHASES, Action, Json, RoundReport

ACTIONS: tuple[str, ...] = tuple(action.name.lower() for action in Action)  # as written to the file

SCHEMA = pa.schema(
    [
        ("round", pa.int64()),
        ("phase", pa.dictionary(pa.int8(), pa.string())),
        ("client", pa.int64()),
        ("index", pa.int64()),
        ("label", pa.int64()),
        ("discrepancy", pa.float64()),  # nats, NaN where unmeasured
        ("before", pa.float64()),  # the detector's score, nats, NaN where unmeasured
        ("after", pa.float64()),  # nats, NaN where unmeasured
        ("threshold", pa.float64()),  # nats, null where the defence has none
        ("steps", pa.int64()),
        ("action", pa.dictionary(pa.int8(), pa.string())),
    ]
)


@dataclass(frozen=True)
class Recorded:
    """How far a record goes: `bytes` of metrics.jsonl, and the number of parts with verdicts."""

    bytes: int = 0
    parts: int = 0


class RunRecorder:
    """Writes every round to disk as it ends, and keeps none of it in memory.

    The verdicts are parts (see `verdict_parts`) until the `with` block ends without an exception; both can be
    read at any time. Opening starts the record of the folder afresh, or, with `after`, goes on from there and forgets
    what came later; an old `summary.json`, which says that a run has finished, goes first. `rivals` names the other
    detectors whose scores get a column each.

        with RunRecorder(folder) as recorder:
            recorder.record(report)

    Raises ValueError on opening when the record in the folder does not go as far as `after`.
    """

    def __init__(self, folder: Path, rivals: Sequence[str] = (), *, after: Recorded | None = None) -> None:
        self.folder = folder
        self._schema = with_rivals(rivals)
        self._metrics: TextIO | None = None
        self._after = after or Recorded()
        self._number = 0
        self._parts: list[Path] = []  # not certain to be on disk yet

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / parts.FOLDER).mkdir(exist_ok=True)
        metrics = self.folder / METRICS
        if metrics.exists() and metrics.stat().st_size < self._after.bytes:
            raise ValueError(f"{metrics} is shorter than it was")
        parts.keep_parts(self.folder, self._after.parts)
        for stale in (SUMMARY, TRUTH, VERDICTS, *DERIVED):
            (self.folder / stale).unlink(missing_ok=True)
        self._metrics = metrics.open("a", encoding="utf-8")
        self._metrics.truncate(self._after.bytes)
        self._number = self._after.parts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if error is None:
            parts.join_parts(self.folder, self._schema)

    def record(self, report: RoundReport) -> None:
        """Append one round to both files; `metrics.jsonl` is flushed, so that others can follow along.

        Raises:
            RuntimeError: outside the `with` block.
            ValueError: arrays of the report differ in length; then neither file has changed.
        """
        if self._metrics is None:
            raise RuntimeError("record() belongs inside `with RunRecorder(folder) as recorder:`")
        table, line = verdict_table(report, self._schema), dumps(round_metrics(report))
        self._parts.append(parts.write_part(self.folder, self._number, table))
        self._number += 1
        self._metrics.write(line + "\n")
        self._metrics.flush()

    def flush(self) -> Recorded:
        """How far the record goes; that much is on disk when this returns."""
        if self._metrics is None:
            raise RuntimeError("flush() belongs inside `with RunRecorder(folder) as recorder:`")
        for path in self._parts:
            with path.open("rb+") as written:
                os.fsync(written.fileno())
        self._parts.clear()
        os.fsync(self._metrics.fileno())
        return Recorded(os.fstat(self._metrics.fileno()).st_size, self._number)


def round_metrics(report: RoundReport) -> Json:
    """One line of metrics.jsonl. `wall_s` comes last: two runs of a seed are equal without that one key.

    Shares and steps are means over all samples of the round, discrepancies (nats) over the measured ones;
    None where there are none. `clients` counts the clients whose samples arrived. `threshold_drift` is {rate, promised}
    in rounds in which the threshold's promise is broken.
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
        "bytes_received": report.bytes_received,
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


def with_rivals(rivals: Sequence[str]) -> pa.Schema:
    """SCHEMA and a column for each of `rivals`: its score, NaN where unmeasured."""
    return pa.schema([*SCHEMA, *((name, pa.float64()) for name in rivals)])


def verdict_table(report: RoundReport, schema: pa.Schema = SCHEMA) -> pa.Table:
    """The round's verdicts as a table of `schema` with N rows."""
    verdicts = report.verdicts
    lengths = {len(a) for a in (report.clients, report.index, report.labels, verdicts.before, verdicts.after)}
    lengths |= {len(verdicts.steps), len(verdicts.actions), *map(len, verdicts.rivals.values())}
    if len(lengths) != 1:
        raise ValueError(f"round {report.round}: arrays of the report differ in length: {sorted(lengths)}")
    (n,) = lengths
    columns = {
        "round": np.full(n, report.round, np.int64),
        "phase": dictionary(np.full(n, PHASES.index(report.phase)), PHASES),
        "client": report.clients,
        "index": report.index,
        "label": report.labels,
        "discrepancy": verdicts.before if verdicts.discrepancy is None else verdicts.discrepancy,
        "before": verdicts.before,
        "after": verdicts.after,
        "threshold": pa.array([verdicts.threshold] * n, pa.float64()),
        "steps": verdicts.steps,
        "action": dictionary(verdicts.actions, ACTIONS),
        **{name: verdicts.rivals.get(name, np.full(n, np.nan)) for name in schema.names[len(SCHEMA) :]},
    }
    return pa.table(columns, schema=schema)


def dictionary(codes: NDArray[np.int64], names: tuple[str, ...]) -> pa.DictionaryArray:
    """Codes [N] in [0, len(names)) as a dictionary-encoded string column."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))


def read_metrics(folder: Path) -> list[Json]:
    """The lines of metrics.jsonl, one a round."""
    with (folder / METRICS).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def recorded_rivals(folder: Path) -> list[str]:
    """The rivals that have a column in verdicts.parquet; none in files from before there were any."""
    return [name for name in pq.read_schema(folder / VERDICTS).names if name not in SCHEMA.names]


def read_verdicts(folder: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The verdicts as a frame, one row a sample (all columns, or only `columns`), also of a run that goes on.

    `phase` and `action` are categorical with the categories PHASES and ACTIONS.
    """
    joined = folder / VERDICTS
    table = pq.read_table(joined, columns=columns) if joined.exists() else parts.read_parts(folder, columns)
    frame = table.to_pandas()
    for column, names in (("phase", PHASES), ("action", ACTIONS)):
        if column in frame:
            frame[column] = pd.Categorical(frame[column].astype(str), categories=list(names))
    return frame
