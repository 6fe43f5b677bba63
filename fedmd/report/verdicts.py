"""The verdicts of a run on disk: one Arrow file a round, joined to one Parquet file when the run has ended.

A Parquet file is unreadable until its footer is written, after the last round. The parts are Arrow files because those
come back exactly, dictionaries included, so that the joined file is the same whether the run was interrupted or not.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import feather

from fedmd.report.files import VERDICTS
from fedmd.storage import discard_leftovers, replacing
from fedmd.types import PHASES, Action, RoundReport

PARTS = "verdicts"  # the folder of the parts, inside the run's
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


def schema_with(baselines: Sequence[str]) -> pa.Schema:
    """SCHEMA and a column for each of `baselines`: its score, NaN where unmeasured."""
    return pa.schema([*SCHEMA, *((name, pa.float64()) for name in baselines)])


def verdict_table(report: RoundReport, schema: pa.Schema = SCHEMA) -> pa.Table:
    """The round's verdicts as a table of `schema` with N rows. Raises ValueError where arrays differ in length."""
    verdicts = report.verdicts
    lengths = {len(a) for a in (report.clients, report.index, report.labels, verdicts.before, verdicts.after)}
    lengths |= {len(verdicts.steps), len(verdicts.actions), *map(len, verdicts.baselines.values())}
    if len(lengths) != 1:
        raise ValueError(f"round {report.round}: arrays of the report differ in length: {sorted(lengths)}")
    (n,) = lengths
    columns = {
        "round": np.full(n, report.round, np.int64),
        "phase": _dictionary(np.full(n, PHASES.index(report.phase)), PHASES),
        "client": report.clients,
        "index": report.index,
        "label": report.labels,
        "discrepancy": verdicts.before if verdicts.discrepancy is None else verdicts.discrepancy,
        "before": verdicts.before,
        "after": verdicts.after,
        "threshold": pa.array([verdicts.threshold] * n, pa.float64()),
        "steps": verdicts.steps,
        "action": _dictionary(verdicts.actions, ACTIONS),
        **{name: verdicts.baselines.get(name, np.full(n, np.nan)) for name in schema.names[len(SCHEMA) :]},
    }
    return pa.table(columns, schema=schema)


def _dictionary(codes: NDArray[np.int64], names: tuple[str, ...]) -> pa.DictionaryArray:
    """Codes [N] in [0, len(names)) as a dictionary-encoded string column."""
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int8()), pa.array(names, pa.string()))


def write_part(folder: Path, number: int, table: pa.Table) -> None:
    """Write part `number` of the run in `folder`; on disk when this returns."""
    with replacing(_part(folder, number)) as temporary:
        feather.write_feather(table, str(temporary), compression="zstd")


def read_part(folder: Path, number: int) -> bytes:
    """Part `number` as it is on disk. Raises ValueError when it is missing."""
    try:
        return _part(folder, number).read_bytes()
    except FileNotFoundError as error:
        raise ValueError(f"{_part(folder, number)} is missing") from error


def keep_parts(folder: Path, count: int) -> None:
    """Delete all but the first `count` parts."""
    wanted = [_part(folder, number) for number in range(count)]
    if (folder / PARTS).exists():
        for path in set((folder / PARTS).iterdir()) - set(wanted):
            path.unlink()


def join_parts(folder: Path, schema: pa.Schema) -> None:
    """Make verdicts.parquet of all parts, which stay; one row group each. Atomic, and on disk when this returns."""
    discard_leftovers(folder, VERDICTS)
    with replacing(folder / VERDICTS) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        for path in _parts(folder):
            table = feather.read_table(str(path), memory_map=False)
            writer.write_table(table, row_group_size=max(1, table.num_rows))


def discard_parts(folder: Path) -> None:
    """Remove the parts."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def recorded_baselines(folder: Path) -> list[str]:
    """The baseline detectors that have a column in verdicts.parquet."""
    return [name for name in pq.read_schema(folder / VERDICTS).names if name not in SCHEMA.names]


def read_verdicts(folder: Path, columns: list[str] | None = None, skip: int = 0) -> pd.DataFrame:
    """The verdicts as a frame, one row a sample (all columns, or only `columns`), also of a run that goes on.

    `phase` and `action` are categorical with the categories PHASES and ACTIONS. Of a run that goes on, those of its
    first `skip` recorded rounds are left out, which saves reading them. Raises FileNotFoundError where there are none.
    """
    joined = folder / VERDICTS
    table = pq.read_table(joined, columns=columns) if joined.exists() else _read_parts(folder, columns, skip)
    frame = table.to_pandas()
    for column, names in (("phase", PHASES), ("action", ACTIONS)):
        if column in frame:
            frame[column] = pd.Categorical(frame[column].astype(str), categories=list(names))
    return frame


def _read_parts(folder: Path, columns: list[str] | None, skip: int) -> pa.Table:
    if not (files := _parts(folder)[skip:]):
        raise FileNotFoundError(folder / PARTS)
    return pa.concat_tables([feather.read_table(str(path), columns=columns, memory_map=False) for path in files])


def _parts(folder: Path) -> list[Path]:
    """The parts in the order they were written."""
    return sorted((folder / PARTS).glob("part-*.arrow"))


def _part(folder: Path, number: int) -> Path:
    return folder / PARTS / f"part-{number:08d}.arrow"
