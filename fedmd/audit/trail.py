"""The append-only trail of a run, durable before the model moves: SQLite files in `RUN/audit/`.

SQLite, because one transaction a round is what the task asks for: after a kill -9 or a power cut a round is there as a
whole or not at all (write-ahead log, synchronous=FULL: one fsync a round), a reader may look while the server writes,
triggers refuse changes by mistake, and any SQLite can query it in twenty years. JSONL would need its own framing and
recovery after a torn line; a Parquet file is unreadable until its footer is written, after the last round; LMDB is one
more dependency, without a query language. Not for network file systems, whose locks the write-ahead log cannot trust.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from fedmd.audit.chain import Position, canonical, link
from fedmd.audit.entries import Entry
from fedmd.audit.reader import SCHEMA, find, is_void, trail_files
from fedmd.config import AuditConfig, ConfigError
from fedmd.storage import discard_leftovers, replacing

if TYPE_CHECKING:
    from fedmd.audit.signing import Signer

FOLDER = "audit"
_CACHE_KIB = 200  # of pages; SQLite would keep 2,000, of which who only appends reads the last ones alone


class AuditTrail:
    """Appends to the newest file of `folder`; begins a new one when that has more than `rotate_bytes`.

    With a `signer` every append ends with its signature.

    with AuditTrail(run_folder / FOLDER) as trail:
        trail.append(entries)

    Entering raises ConfigError when the newest file is no trail (any more).
    """

    def __init__(self, folder: Path, *, rotate_bytes: int = 2**28, signer: Signer | None = None) -> None:
        self.folder = folder
        self._signer = signer
        self._rotate_bytes = rotate_bytes
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        discard_leftovers(self.folder, "trail-*.sqlite")
        if not trail_files(self.folder):
            _begin(self._named(1), Position())
        newest = trail_files(self.folder)[-1]
        try:
            self._connect(newest)
            _position(self._connected)
        except sqlite3.DatabaseError as error:
            if self._database is not None:  # which there is none of where it could not even be opened
                self._database.close()
            raise ConfigError(f"{newest}: nothing can be appended to this audit trail ({error}).") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish()
        except sqlite3.OperationalError:
            if error is None:  # what came first is told
                raise
        finally:
            self._database = None

    @property
    def position(self) -> Position:
        """Behind the last record; what a checkpoint must remember."""
        return _position(self._connected)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add `entries` in one transaction: when this returns they are all on disk; if it raises, none is."""
        if not entries:
            return
        if self._size() > self._rotate_bytes:
            self._rotate()
        with _transaction(self._connected):
            _insert(self._connected, entries, self._signer)

    def rewind(self, position: Position, reason: str) -> None:
        """Declare everything after `position` void, by one more record: nothing is ever deleted.

        For a run that goes on from a checkpoint: it repeats the rounds after it, and they must not count twice.
        Raises ValueError when `position` is none of this trail, or void itself.
        """
        if find(self.folder, position.seq) != position.hash:
            raise ValueError(f"the trail in {self.folder} has no record {position.seq} with the expected hash")
        if is_void(self.folder, position.seq):
            raise ValueError(f"record {position.seq} was rewound past already")
        self.append([Entry("rewind", "rewound", reason=reason, position=position.seq)])

    @property
    def _connected(self) -> sqlite3.Connection:
        if self._database is None:
            raise RuntimeError("the trail is used inside `with AuditTrail(folder) as trail:`")
        return self._database

    def _rotate(self) -> None:
        newest = trail_files(self.folder)[-1]
        following = self._named(int(newest.stem.removeprefix("trail-")) + 1)
        _begin(following, self.position, self._signer)
        self._finish()
        self._connect(following)

    def _named(self, number: int) -> Path:
        return self.folder / f"trail-{number:06d}.sqlite"

    def _size(self) -> int:
        """Bytes of the newest file, with what still waits in its write-ahead log."""
        (pages,), (size,) = (self._connected.execute(f"PRAGMA page_{what}").fetchone() for what in ("count", "size"))
        return int(pages) * int(size)

    def _connect(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None, timeout=30)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _finish(self) -> None:
        """Close the file as a plain one, that can be read from where nobody may write."""
        with closing(self._connected) as database:
            database.execute("PRAGMA busy_timeout = 0")
            try:
                database.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the disk's fault
                    raise  # else somebody is reading: it stays as it is, no less durable


def _begin(file: Path, start: Position, signer: Signer | None = None) -> None:
    """Write `file` with its tables, its place in the chain and the first record; its name appears with all of them.

    Thus a reader never meets a file without tables, whenever the server dies, and one that somebody emptied is no
    less broken than it looks.
    """
    for log in ("wal", "journal"):  # left when somebody deleted a file of this name; SQLite would read it into ours
        file.with_name(f"{file.name}-{log}").unlink(missing_ok=True)
    with replacing(file) as unnamed, closing(sqlite3.connect(unnamed, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=MEMORY")  # no second file to leave behind: half of it is worth nothing
        with _transaction(database):
            for statement in SCHEMA:
                database.execute(statement)
            database.execute("INSERT INTO head VALUES (1, ?, ?)", (start.seq, start.hash))
            if start.seq:
                _insert(database, [Entry("rotation", "continued", previous=start.hash)], signer)


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # a full disk ends it by itself
            database.execute("ROLLBACK")
        raise


def _position(database: sqlite3.Connection) -> Position:
    head = database.execute("SELECT seq, hash FROM head").fetchone()
    if head is None:
        raise sqlite3.DatabaseError("it has no head")
    return Position(int(head[0]), str(head[1]))


def _insert(database: sqlite3.Connection, entries: Sequence[Entry], signer: Signer | None) -> None:
    here, now = _position(database), time.time()
    rows = []

    def add(entry: Entry) -> None:
        nonlocal here
        text = canonical({"seq": here.seq + 1, "time": now, **entry.body()})
        here = Position(here.seq + 1, link(here.hash, text.encode()))
        rows.append((here.seq, text, here.hash))

    for entry in entries:
        add(entry)
    if signer is not None:
        add(signer.entry(here))
    database.executemany("INSERT INTO records VALUES (?, ?, ?)", rows)
    database.execute("UPDATE head SET seq = ?, hash = ?", (here.seq, here.hash))


def open_trail(run: Path, config: AuditConfig) -> AuditTrail:
    """The trail of the run in the folder `run`, as `config` wants it. Raises ConfigError for a key that is none."""
    signer = None
    if config.key_file is not None:
        from fedmd.audit.signing import Signer  # half a second, for who signs

        signer = Signer(Path(config.key_file))
    return AuditTrail(run / FOLDER, rotate_bytes=config.rotate_bytes, signer=signer)
