"""The verdicts of a run that goes on: one Arrow file a round, joined to one Parquet file when it has ended.

A Parquet file is unreadable until its footer is written, after the last round. The parts are Arrow files because those
come back exactly, dictionaries included, so that the joined file is the same whether the run was interrupted or not.
"""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from fedmd.report.files import VERDICTS

FOLDER = "verdicts"


def part_files(folder: Path) -> list[Path]:
    """The parts in the run's `folder`, in the order they were written."""
    return sorted((folder / FOLDER).glob("part-*.arrow"))


def write_part(folder: Path, number: int, table: pa.Table) -> Path:
    """Write part `number`; readers see it whole or not at all."""
    path = _named(folder, number)
    partial = path.with_suffix(".partial")
    feather.write_feather(table, str(partial), compression="zstd")
    partial.replace(path)
    return path


def keep_parts(folder: Path, count: int) -> None:
    """Delete all but the first `count` parts. Raises ValueError when one of these is missing."""
    wanted = [_named(folder, number) for number in range(count)]
    if missing := [path for path in wanted if not path.exists()]:
        raise ValueError(f"{missing[0]} is missing")
    if (folder / FOLDER).exists():
        for path in set((folder / FOLDER).iterdir()) - set(wanted):
            path.unlink()


def join_parts(folder: Path, schema: pa.Schema) -> None:
    """Make verdicts.parquet of all parts, which stay; one row group each. Atomic, and on disk when this returns."""
    partial = folder / f"{VERDICTS}.partial"
    with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for path in part_files(folder):
            table = feather.read_table(str(path), memory_map=False)
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    with partial.open("rb+") as written:
        os.fsync(written.fileno())
    partial.replace(folder / VERDICTS)


def read_parts(folder: Path, columns: list[str] | None = None) -> pa.Table:
    """All parts as one table. Raises FileNotFoundError when there is none."""
    if not (files := part_files(folder)):
        raise FileNotFoundError(folder / FOLDER)
    return pa.concat_tables([feather.read_table(str(path), columns=columns, memory_map=False) for path in files])


def discard_parts(folder: Path) -> None:
    """Remove the parts."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _named(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"part-{number:08d}.arrow"
