"""Read a trail back, also while a server writes it; check its chain from the first record to the last.

Each file is read in one transaction, hence as it was at one moment; all but the newest will never change.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmd.audit.chain import GENESIS, Position, link
from fedmd.audit.entries import Entry
from fedmd.config import ConfigError

if TYPE_CHECKING:
    from fedmd.audit.signing import Checker

_REFUSE = "BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END"
SCHEMA = (
    "CREATE TABLE records (seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash TEXT NOT NULL)",
    f"CREATE TRIGGER no_update BEFORE UPDATE ON records {_REFUSE}",
    f"CREATE TRIGGER no_delete BEFORE DELETE ON records {_REFUSE}",
)
_UNREADABLE = (sqlite3.Error, ValueError, KeyError, TypeError, RecursionError)  # what a changed file may raise
_LATEST = 253402300800.0  # the end of the year 9999


@dataclass(frozen=True)
class Record:
    """An entry with its place in the chain and the time it was written (seconds since 1970, UTC)."""

    seq: int
    time: float
    entry: Entry
    hash: str


@dataclass(frozen=True)
class Intact:
    """Every record from `first` to `head` is as it was written. `first` > 1: earlier files are kept elsewhere."""

    files: int
    first: int
    head: Position


@dataclass(frozen=True)
class Broken:
    """The first record (its expected number) that is not as it was written, in which file, and what is wrong."""

    file: str
    seq: int
    reason: str


def trail_files(folder: Path) -> list[Path]:
    """The files of the trail in `folder`, oldest first."""
    return sorted(folder.glob("trail-*.sqlite"))


def find(folder: Path, seq: int) -> str | None:
    """The hash of record `seq`; that of the beginning for 0; None if there is none."""
    if seq == 0:
        return GENESIS
    for file in reversed(trail_files(folder)):
        with _reading(file) as database:
            if row := database.execute("SELECT hash FROM records WHERE seq = ?", (seq,)).fetchone():
                return str(row[0].decode())
    return None


def is_void(folder: Path, seq: int) -> bool:
    """Whether a later rewind declared record `seq` void."""
    return any(start < seq < end for start, end in _void_ranges(trail_files(folder))[0])


def read_live(folder: Path) -> Iterator[Record]:
    """The records that count, in order: those that no rewind declared void, and no rewinds.

    Raises ConfigError for a file that cannot be read; whether what can be read is true, only `verify` says.
    """
    files = trail_files(folder)
    try:
        void, last = _void_ranges(files)
        for file in files:
            for record in _records(file, last):
                if record.entry.kind != "rewind" and not any(start < record.seq < end for start, end in void):
                    yield record
    except _UNREADABLE as error:
        raise ConfigError(f"{folder}: the trail cannot be read ({error}), see `fedmd audit --verify`.") from error


def verify(folder: Path) -> Intact | Broken:
    """Recompute every hash of the trail in `folder`. Raises FileNotFoundError where there is no trail.

    Broken is also a file without tables: none ever gets its name before its tables, so somebody emptied it. What no
    file can tell is that newer ones were deleted; a head that was noted elsewhere does.
    """
    files = trail_files(folder)
    if not files:
        raise FileNotFoundError(folder)
    here = first = None
    for file in files:
        try:
            with _reading(file) as database:
                if here is None:
                    here = _beginning(database)
                    first = here.seq + 1
                result = _check(database, here)
        except _UNREADABLE as error:
            result = Broken("", (here or Position()).seq + 1, f"the file cannot be read: {error}")
        if isinstance(result, Broken):
            return Broken(file.name, result.seq, result.reason)
        here = result
    assert here is not None and first is not None
    return Intact(len(files), first, here)


def what_is_cut(folder: Path, trail: Intact, head: Position) -> str | None:
    """What is wrong with an intact trail for somebody who noted `head` earlier; None when it leads through there."""
    if head.seq < trail.first - 1:
        raise ConfigError(f"--head: record {head.seq} is in a file that is kept elsewhere, and cannot be checked here.")
    if head.seq > trail.head.seq:
        return f"the trail ends with record {trail.head.seq}, before the noted head {head.seq}"
    before_first = head.seq == trail.first - 1 and head.seq > 0
    found = _start(folder).hash if before_first else find(folder, head.seq)
    return None if found == head.hash else f"record {head.seq} has another hash than the noted head"


def what_is_unsigned(folder: Path, trail: Intact, checker: Checker) -> str | None:
    """What is wrong with the signatures of an intact trail; None when the key stands behind all of it."""
    previous, signed = _start(folder), False
    try:
        for file in trail_files(folder):
            for record in _records(file, trail.head.seq):
                signed = record.entry.kind == "signature"
                if signed and not checker.signs(record.entry, previous):
                    return f"record {record.seq} is no signature of this key"
                previous = Position(record.seq, record.hash)
    except _UNREADABLE as error:
        return f"record {previous.seq + 1} cannot be read: {error}"
    return None if signed else f"record {previous.seq}, the last one, is not followed by a signature"


def _start(folder: Path) -> Position:
    """The place before the first record in `folder`."""
    with _reading(trail_files(folder)[0]) as database:
        return _beginning(database)


def _check(database: sqlite3.Connection, here: Position) -> Position | Broken:
    """The place behind the last record of one file, which begins at `here`."""
    schema = tuple(sql.decode() for (sql,) in database.execute("SELECT sql FROM sqlite_master ORDER BY rowid"))
    if schema != SCHEMA:
        return Broken("", here.seq + 1, "the tables or the triggers that protect them were changed")
    for seq, body, digest in database.execute("SELECT seq, body, hash FROM records ORDER BY seq"):
        expected = here.seq + 1
        if seq != expected:
            return Broken("", expected, f"the record is missing; {seq} follows")
        if link(here.hash, body).encode() != digest:
            return Broken("", expected, "its hash does not follow from its content and the record before")
        if _place_in(body) != seq:
            return Broken("", expected, "it is not where it was written")
        here = Position(seq, digest.decode())
    heads = database.execute("SELECT seq, hash FROM head").fetchall()
    if heads != [(here.seq, here.hash.encode())]:
        return Broken("", here.seq + 1, "records are missing at the end")
    if (problem := database.execute("PRAGMA integrity_check").fetchone()[0]) != b"ok":
        return Broken("", here.seq + 1, f"the file is damaged: {problem.decode()}")
    return here


def _place_in(body: bytes) -> object:
    """The record number that its body names; None where that is no object with one."""
    try:
        return json.loads(body)["seq"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _beginning(database: sqlite3.Connection) -> Position:
    """Where the first file there is begins: at the chain's beginning, or where its first record says."""
    row = database.execute("SELECT seq, body FROM records ORDER BY seq LIMIT 1").fetchone()
    if row is None or row[0] == 1:
        return Position()
    return Position(int(row[0]) - 1, str(json.loads(row[1])["previous"]))


def _void_ranges(files: list[Path]) -> tuple[list[tuple[int, int]], int]:
    """(position, seq) of every rewind up to the record that comes second: the last there is.

    Who reads no further than to that record sees the trail of this moment, whatever is appended meanwhile.
    """
    ranges, last = [], 0
    for file in files:
        with _reading(file) as database:
            rewinds = "SELECT body FROM records WHERE json_extract(body, '$.kind') = 'rewind'"
            for (body,) in database.execute(rewinds):
                entry = json.loads(body)
                ranges.append((entry["position"], entry["seq"]))
            last = database.execute("SELECT max(seq) FROM records").fetchone()[0] or last
    return ranges, last


def _records(file: Path, last: int) -> Iterator[Record]:
    with _reading(file) as database:
        found = database.execute("SELECT seq, body, hash FROM records WHERE seq <= ? ORDER BY seq", (last,))
        for seq, body, digest in found:
            value = json.loads(body)
            if not 0 <= value["time"] < _LATEST:
                raise ValueError(f"record {seq} is of no time")
            yield Record(seq, value["time"], Entry.of(value), digest.decode())


@contextmanager
def _reading(file: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write, and sees the file as it is when it first looks, until the block ends.

    Text comes as bytes, for a damaged file may hold anything.
    """
    left = file.with_name(f"{file.name}-journal").exists()  # by a writer that was killed as it closed the file: SQLite
    mode = "rw" if left else "ro"  # reads what is in it once it has undone the half of a transaction that it holds
    address = f"{file.absolute().as_uri()}?mode={mode}"
    with closing(sqlite3.connect(address, uri=True, timeout=30, isolation_level=None)) as database:
        database.text_factory = bytes
        database.execute("PRAGMA query_only = ON")
        database.execute("BEGIN")
        yield database
