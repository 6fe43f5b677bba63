"""Whoever reads a trail while its server writes sees one moment of it: never tampering, never a round twice."""

import itertools
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedmd.audit.entries import Entry
from fedmd.audit.reader import Intact, read_live, trail_files, verify
from fedmd.audit.trail import AuditTrail


def message(client: int, round: int = 0) -> Entry:
    return Entry("message", "accepted", round=round, client=client)


@pytest.fixture
def before_each_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], object]], None]]:
    """`before_each_read(write)` has `write()` done before every statement of a connection that only reads."""
    connect, busy = sqlite3.connect, False
    tell: list[Callable[[], object]] = []

    class Reader(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            nonlocal busy
            if not busy:  # `rewind` reads, too
                busy = True
                for write in tell:
                    write()
                busy = False
            return super().execute(*arguments)

    def watched(path: Any, *arguments: Any, **options: Any) -> sqlite3.Connection:
        if "mode=ro" in str(path):
            options["factory"] = Reader
        return connect(path, *arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", watched)
    yield tell.append
    tell.clear()


@pytest.mark.parametrize("rotate_bytes", [0, 2**28])
def test_records_that_come_between_two_reads_are_no_tampering(
    tmp_path: Path, before_each_read: Any, rotate_bytes: int
) -> None:
    with AuditTrail(tmp_path, rotate_bytes=rotate_bytes) as trail:
        trail.append([message(1)])
        before_each_read(lambda: trail.append([message(2)]))
        assert isinstance(found := verify(tmp_path), Intact), found
        assert 1 <= found.head.seq < trail.position.seq


@pytest.mark.parametrize("rotate_bytes", [0, 2**28])
def test_a_rewind_that_comes_between_two_reads_makes_no_round_count_twice(
    tmp_path: Path, before_each_read: Any, rotate_bytes: int
) -> None:
    with AuditTrail(tmp_path, rotate_bytes=rotate_bytes) as trail:
        trail.append([message(1, round=0)])
        here = trail.position
        trail.append([message(1, round=1)])

        def repeat() -> None:
            trail.rewind(here, "resumed")
            trail.append([message(1, round=1)])

        before_each_read(repeat)
        rounds = [record.entry.round for record in read_live(tmp_path) if record.entry.kind == "message"]
    assert rounds == [0, 1]


def test_a_server_that_writes_without_pause_is_never_called_a_forger(tmp_path: Path) -> None:
    """Another process appends, rotates and closes its files; no reading meanwhile finds a fault."""
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from fedmd.audit.entries import Entry
        from fedmd.audit.trail import AuditTrail
        for start in range(12):
            with AuditTrail(Path(sys.argv[1]), rotate_bytes=2**17) as trail:
                for round in range(40):
                    trail.append([Entry("message", "accepted", round=round, client=c) for c in range(50)])
        """
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.DEVNULL) as child:
        try:
            while not trail_files(tmp_path):
                time.sleep(0.01)
            heads = []
            while child.poll() is None or not heads:  # it ends: readings that grow with what they read might not
                found = verify(tmp_path)
                assert isinstance(found, Intact), found
                heads.append(found.head.seq)
                seqs = [record.seq for record in read_live(tmp_path)]
                assert seqs == list(range(1, len(seqs) + 1))
        finally:
            child.kill()
    assert all(earlier <= later for earlier, later in itertools.pairwise(heads))
    last = verify(tmp_path)
    assert isinstance(last, Intact) and last.head.seq >= max(12 * 40 * 50, heads[-1])
