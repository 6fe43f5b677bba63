"""The trail holds whatever is appended, in whole transactions, and any later change to it is found."""

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.audit.chain import Position
from fedmd.audit.entries import Entry
from fedmd.audit.reader import Broken, Intact, read_live, trail_files, verify
from fedmd.audit.trail import AuditTrail
from fedmd.config import ConfigError

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # hundreds of small databases; nobody pulls a plug here
numbers = st.floats(allow_nan=True, allow_infinity=True) | st.none()
entries = st.builds(
    Entry,
    kind=st.sampled_from(["message", "verdict", "quarantine"]),
    action=st.sampled_from(["accepted", "rejected"]),
    round=st.integers(0, 10**9) | st.none(),
    client=st.integers(0, 2**62),
    discrepancy=numbers,
    reason=st.text(st.characters(), max_size=40) | st.none(),  # lone surrogates and all
)
batches = st.lists(st.lists(entries, max_size=5), max_size=6)


def message(client: int, round: int = 0) -> Entry:
    return Entry("message", "accepted", round=round, client=client)


def written(folder: Path, count: int = 6) -> list[Entry]:
    told = [message(client) for client in range(count)]
    with AuditTrail(folder) as trail:
        trail.append(told)
    return told


def forge(file: Path, *statements: str) -> None:
    """What somebody with a text editor's patience does: drop the triggers, change, put the triggers back."""
    with sqlite3.connect(file) as database:
        triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        for _, sql in triggers:
            database.execute(sql)
    database.close()


@settings(max_examples=40, deadline=None)
@given(appended=batches, rotate=st.sampled_from([0, 2**28]))
def test_any_sequence_of_appends_verifies_and_reads_back(appended: list[list[Entry]], rotate: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        for batch in appended:
            with AuditTrail(folder, rotate_bytes=rotate) as trail:  # reopened each time
                trail.append(batch)
        told = [entry for batch in appended for entry in batch]
        with AuditTrail(folder) as trail:
            assert verify(folder) == Intact(len(trail_files(folder)), 1, trail.position)
        live = [r.entry for r in read_live(folder) if r.entry.kind != "rotation"]
        assert list(map(finite, live)) == list(map(finite, told))
        assert rotate or len(trail_files(folder)) == 1 + sum(map(bool, appended))


def finite(entry: Entry) -> str:
    """JSON has no NaN: what is no number is told as nothing."""
    body = entry.body()
    if not math.isfinite(body.get("discrepancy", 0.0)):
        del body["discrepancy"]
    return json.dumps(body, sort_keys=True)


def test_the_chain_by_hand(tmp_path: Path) -> None:
    """h_n = SHA-256(h_{n-1} + canonical JSON), worked out here without the package."""
    written(tmp_path, 3)
    with sqlite3.connect(trail_files(tmp_path)[0]) as database:
        rows = database.execute("SELECT seq, body, hash FROM records ORDER BY seq").fetchall()
    last = "0" * 64
    for seq, body, digest in rows:
        value = json.loads(body)
        assert (value["seq"], value["client"]) == (seq, seq - 1)
        assert body == json.dumps(value, sort_keys=True, separators=(",", ":"))
        last = hashlib.sha256((last + body).encode()).hexdigest()
        assert digest == last


@pytest.mark.parametrize("change", ["UPDATE records SET body = '{}'", "DELETE FROM records WHERE seq = 2"])
def test_triggers_refuse_changes(tmp_path: Path, change: str) -> None:
    written(tmp_path)
    with sqlite3.connect(trail_files(tmp_path)[0]) as database, pytest.raises(sqlite3.IntegrityError, match="append"):
        database.execute(change)


@pytest.mark.parametrize(
    ("statements", "broken"),
    [
        (["UPDATE records SET body = replace(body, 'accepted', 'rejected') WHERE seq = 3"], 3),
        (["UPDATE records SET hash = replace(hash, substr(hash, 1, 1), 'x') WHERE seq = 4"], 4),
        (["DELETE FROM records WHERE seq = 1"], 1),
        (["DELETE FROM records WHERE seq = 3"], 3),
        (["DELETE FROM records WHERE seq = 6"], 6),  # the last one: nothing follows that could miss it
        (["DELETE FROM records"], 1),
        (["UPDATE records SET seq = 9 WHERE seq = 3", "UPDATE records SET seq = 3 WHERE seq = 4",
          "UPDATE records SET seq = 4 WHERE seq = 9"], 3),
        (["INSERT INTO records SELECT 7, body, hash FROM records WHERE seq = 6"], 7),
        (["DROP TABLE head"], 1),
        (["CREATE TABLE more (x)"], 1),
        (["UPDATE head SET seq = 7"], 7),
    ],
)  # fmt: skip
def test_verify_names_the_first_record_that_was_touched(tmp_path: Path, statements: list[str], broken: int) -> None:
    written(tmp_path)
    forge(trail_files(tmp_path)[0], *statements)
    found = verify(tmp_path)
    assert isinstance(found, Broken) and found.seq == broken


def test_dropped_triggers_are_found(tmp_path: Path) -> None:
    written(tmp_path)
    with sqlite3.connect(trail_files(tmp_path)[0]) as database:
        database.execute("DROP TRIGGER no_delete")
    database.close()
    assert isinstance(verify(tmp_path), Broken)


@settings(max_examples=100, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_of_the_file_is_found_or_changes_nothing(place: float, flip: int) -> None:
    """Some bytes of a database file mean nothing (free space, counters); what is read is never other than written."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        told = written(folder)
        file = trail_files(folder)[0]
        content = bytearray(file.read_bytes())
        content[int(place * len(content))] ^= flip
        file.write_bytes(content)
        if isinstance(verify(folder), Intact):
            assert [record.entry for record in read_live(folder)] == told


@settings(max_examples=60, deadline=None)
@given(
    seq=st.integers(1, 6),
    column=st.sampled_from(["body", "hash"]),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
)
def test_any_flipped_byte_of_a_record_is_found(seq: int, column: str, place: float, flip: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        written(folder)
        with sqlite3.connect(trail_files(folder)[0]) as database:
            (text,) = database.execute(f"SELECT {column} FROM records WHERE seq = {seq}").fetchone()
        database.close()
        changed = bytearray(text.encode())
        changed[int(place * len(changed))] ^= flip
        forge(
            trail_files(folder)[0],
            f"UPDATE records SET {column} = CAST(x'{changed.hex()}' AS TEXT) WHERE seq = {seq}",
        )
        found = verify(folder)
        assert isinstance(found, Broken) and found.seq == seq


# -- files ----------------------------------------------------------------------------------------------------------


def rotated(folder: Path) -> list[Path]:
    with AuditTrail(folder, rotate_bytes=0) as trail:
        for client in range(4):
            trail.append([message(client)])
    return trail_files(folder)


def test_rotated_files_continue_the_chain(tmp_path: Path) -> None:
    files = rotated(tmp_path)
    assert [file.name for file in files] == [f"trail-{n:06d}.sqlite" for n in range(1, 6)]
    records = list(read_live(tmp_path))
    assert [record.seq for record in records] == list(
        range(1, 8)
    )  # four messages and, but for the first two files, a rotation each
    for before, first in itertools.pairwise(records):
        if first.entry.kind == "rotation":
            assert first.entry.previous == before.hash


def test_a_file_missing_in_the_middle_is_found_and_archived_ones_are_named(tmp_path: Path) -> None:
    files = rotated(tmp_path)
    intact = verify(tmp_path)
    assert isinstance(intact, Intact)
    files[0].unlink()
    files[1].unlink()
    later = verify(tmp_path)
    assert isinstance(later, Intact) and later.head == intact.head and later.first > 1
    files[3].unlink()
    found = verify(tmp_path)
    assert isinstance(found, Broken) and found.file == files[4].name
    with AuditTrail(tmp_path, rotate_bytes=0) as trail:
        trail.append([message(9)])
    assert trail_files(tmp_path)[-1].name == "trail-000006.sqlite"  # never a name that was taken


def test_a_reader_looks_while_the_server_writes(tmp_path: Path) -> None:
    with AuditTrail(tmp_path) as trail:
        trail.append([message(1)])
        assert len(list(read_live(tmp_path))) == 1
        assert isinstance(verify(tmp_path), Intact)
        trail.append([message(2)])
        assert len(list(read_live(tmp_path))) == 2


def test_a_finished_trail_is_one_plain_file_and_readers_leave_nothing(tmp_path: Path) -> None:
    written(tmp_path)
    before = trail_files(tmp_path)[0].read_bytes()
    assert isinstance(verify(tmp_path), Intact) and len(list(read_live(tmp_path))) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["trail-000001.sqlite"]
    assert trail_files(tmp_path)[0].read_bytes() == before


def test_one_whose_writer_was_killed_as_it_closed_the_file_is_intact(tmp_path: Path) -> None:
    """A rollback journal is left beside it, which only who may write can undo; so is it after an error of the disk."""
    written(tmp_path / "trail")
    (file,) = trail_files(tmp_path / "trail")
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("PRAGMA cache_size = 1")  # pages go to the file, and their old content to the journal, at once
        database.execute("BEGIN")
        database.execute("CREATE TABLE half AS SELECT a.body FROM records AS a, records AS b, records AS c")
        killed = shutil.copytree(tmp_path / "trail", tmp_path / "killed")
        database.execute("ROLLBACK")
    assert {path.name for path in killed.iterdir()} == {file.name, f"{file.name}-journal"}
    assert isinstance(verify(killed), Intact)
    assert [record.entry for record in read_live(killed)] == [record.entry for record in read_live(tmp_path / "trail")]


@pytest.mark.parametrize(("code", "told"), [(sqlite3.SQLITE_IOERR_DELETE, True), (sqlite3.SQLITE_BUSY, False)])
def test_a_file_that_cannot_be_closed_is_told_unless_somebody_reads(code: int, told: bool, tmp_path: Path) -> None:
    class Failing:
        """A connection whose last statement fails."""

        def execute(self, statement: str) -> None:
            if "journal_mode" in statement:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = code
                raise error

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    trail = AuditTrail(tmp_path)
    with pytest.raises(sqlite3.OperationalError) if told else nullcontext(), trail:
        real, trail._database = trail._database, Failing()  # type: ignore[assignment]
    real.close()  # type: ignore[union-attr]
    assert closed == [True]
    trail = AuditTrail(tmp_path)
    with pytest.raises(KeyError, match="first"), trail:  # what came first is told
        real, trail._database = trail._database, Failing()  # type: ignore[assignment]
        real.close()  # type: ignore[union-attr]
        raise KeyError("first")


def test_a_trail_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "trail-000001.sqlite").mkdir()
    with (
        pytest.raises(ConfigError, match=r"trail-000001\.sqlite: nothing can be appended to this audit trail"),
        AuditTrail(tmp_path),
    ):
        pass


def test_a_failed_append_leaves_nothing(tmp_path: Path) -> None:
    with AuditTrail(tmp_path) as trail:
        trail.append([message(1)])
        with pytest.raises(TypeError):
            trail.append([message(2), Entry("message", "accepted", reason=object())])  # type: ignore[arg-type]
        trail.append([message(3)])
    assert [record.entry.client for record in read_live(tmp_path)] == [1, 3]


def test_kill_9_leaves_whole_rounds(tmp_path: Path) -> None:
    """The process dies after some appends have returned and, most likely, within one."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fedmd.audit.entries import Entry
        from fedmd.audit.trail import AuditTrail
        with AuditTrail(Path(sys.argv[1])) as trail:
            for round in range(10**6):
                trail.append([Entry("message", "accepted", round=round, client=c) for c in range(200)])
                print(round, flush=True)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for _ in range(3):
            acknowledged = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
    assert isinstance(verify(tmp_path), Intact)
    rounds = [record.entry.round for record in read_live(tmp_path)]
    assert rounds == [round for round in range(len(rounds) // 200) for _ in range(200)]
    assert len(rounds) // 200 > acknowledged
    with AuditTrail(tmp_path) as trail:
        trail.append([message(0)])
    assert isinstance(verify(tmp_path), Intact)


# -- rewind ---------------------------------------------------------------------------------------------------------


def test_a_rewound_trail_counts_every_round_once(tmp_path: Path) -> None:
    with AuditTrail(tmp_path) as trail:
        trail.append([message(1, round=0)])
        here = trail.position
        trail.append([message(1, round=1)])
        trail.append([message(1, round=2)])
        trail.rewind(here, "resumed")
        trail.append([message(1, round=1)])
        later = trail.position
        trail.append([message(1, round=2)])
        trail.rewind(later, "resumed again")
        trail.append([message(1, round=2)])
    records = list(read_live(tmp_path))
    assert [record.entry.round for record in records] == [0, 1, 2]
    assert [record.seq for record in records] == [1, 5, 8]
    assert isinstance(verify(tmp_path), Intact)  # nothing was deleted


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.integers(0, 8) | st.none(), max_size=12))
def test_rewinding_is_cutting(steps: list[int | None]) -> None:
    """None appends; a number goes back to that many live records. Held against a plain list."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, AuditTrail(Path(name)) as trail:
        live: list[int] = []
        places = [trail.position]
        for client, step in enumerate(steps):
            if step is None:
                trail.append([message(client)])
                live.append(client)
                places.append(trail.position)
            else:
                keep = min(step, len(live))
                trail.rewind(places[keep], "resumed")
                live, places = live[:keep], places[: keep + 1]
        assert [record.entry.client for record in read_live(Path(name))] == live


@pytest.mark.parametrize("bad", [Position(2, "f" * 64), Position(99, "0" * 64), Position(0, "1" * 64)])
def test_a_position_of_another_trail_is_refused(tmp_path: Path, bad: Position) -> None:
    written(tmp_path)
    with AuditTrail(tmp_path) as trail, pytest.raises(ValueError, match=f"no record {bad.seq}"):
        trail.rewind(bad, "resumed")


def test_a_void_position_is_refused(tmp_path: Path) -> None:
    with AuditTrail(tmp_path) as trail:
        trail.append([message(1)])
        void = trail.position
        trail.rewind(Position(), "resumed")
        with pytest.raises(ValueError, match="rewound past"):
            trail.rewind(void, "resumed")
