"""A trail file has its name only with its tables in it: who looks, or dies, meanwhile finds a whole trail."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmd.audit.entries import Entry
from fedmd.audit.reader import Broken, Intact, read_live, trail_files, verify
from fedmd.audit.trail import FOLDER, AuditTrail
from fedmd.cli import main as cli
from fedmd.cli.commands import app
from fedmd.config import ConfigError


def fedmd(*arguments: object) -> int:
    """The exit code of a command, in this process."""
    return int(app([str(argument) for argument in arguments], standalone_mode=False))


def message(client: int) -> Entry:
    return Entry("message", "accepted", round=client, client=client)


def clients(folder: Path) -> list[int | None]:
    return [record.entry.client for record in read_live(folder) if record.entry.kind == "message"]


def before_every_step(monkeypatch: pytest.MonkeyPatch, look: Callable[[], None]) -> None:
    """Call `look` before every statement and closing of a connection that may write, and before every renaming."""

    class Watched(sqlite3.Connection):
        def execute(self, *arguments: Any) -> sqlite3.Cursor:
            look()
            return super().execute(*arguments)

        def executemany(self, *arguments: Any) -> sqlite3.Cursor:
            look()
            return super().executemany(*arguments)

        def close(self) -> None:
            look()
            super().close()

    connect, replace = sqlite3.connect, os.replace

    def connecting(*arguments: Any, **named: Any) -> sqlite3.Connection:
        made: sqlite3.Connection = connect(*arguments, **({} if named.get("uri") else {"factory": Watched}), **named)
        return made

    def replacing(*arguments: Any) -> None:
        look()
        replace(*arguments)

    monkeypatch.setattr(sqlite3, "connect", connecting)
    monkeypatch.setattr(os, "replace", replacing)


def test_dying_or_looking_at_any_step_of_a_rotation_finds_a_whole_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Death is a copy of the files as they are at that step; looking is `verify` and `read_live` at that step."""
    folder = tmp_path / "run" / FOLDER
    deaths: list[tuple[Path, int]] = []
    acknowledged = 0

    def look() -> None:
        if trail_files(folder):
            assert isinstance(verify(folder), Intact)
            assert clients(folder) in (list(range(acknowledged)), list(range(acknowledged + 1)))
        copy = tmp_path / f"death-{len(deaths)}"  # by another process: closing a database's file here drops its locks
        subprocess.run(["cp", "-r", folder.parent, copy], check=True)
        deaths.append((copy, acknowledged))

    with monkeypatch.context() as patched:
        before_every_step(patched, look)
        with AuditTrail(folder, rotate_bytes=0) as trail:
            for client in range(3):
                trail.append([message(client)])
                acknowledged += 1
    assert len(trail_files(folder)) == 4

    unnamed = 0
    for run, told in deaths:
        unnamed += bool(list((run / FOLDER).glob(".trail-*")))
        if trail_files(run / FOLDER):
            assert fedmd("audit", run, "--verify") == fedmd("audit", run) == fedmd("quarantine", run, "list") == 0
        with AuditTrail(run / FOLDER, rotate_bytes=0) as trail:
            trail.append([message(9)])
        found = clients(run / FOLDER)
        assert found in ([*range(told), 9], [*range(told + 1), 9])
        assert isinstance(verify(run / FOLDER), Intact)
        assert not list((run / FOLDER).glob(".*"))
    assert unnamed > 4  # some of them died while the new file had no name yet
    assert "BROKEN" not in capsys.readouterr().out


def test_the_log_of_a_file_that_was_deleted_is_not_read_into_the_one_that_takes_its_name(tmp_path: Path) -> None:
    folder, run = tmp_path / FOLDER, tmp_path / "killed"
    with AuditTrail(folder, rotate_bytes=0) as trail:
        for client in range(3):
            trail.append([message(client)])
        subprocess.run(["cp", "-r", folder, run], check=True)
    newest = trail_files(run)[-1]
    assert newest.with_name(f"{newest.name}-wal").stat().st_size
    newest.unlink()
    with AuditTrail(run, rotate_bytes=0) as trail:
        trail.append([message(9)])
    assert isinstance(verify(run), Intact)
    assert trail_files(run)[-1] == newest and clients(run) == [0, 1, 9]


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def without_tables(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE records")
        database.execute("DROP TABLE head")
    database.close()


def no_database(file: Path) -> None:
    file.write_bytes(b"once upon a time " * 100)


@pytest.mark.parametrize("spoil", [emptied, without_tables, no_database])
@pytest.mark.parametrize("newest", [True, False])
def test_a_file_that_lost_its_tables_is_broken_and_told_in_a_sentence(
    tmp_path: Path, spoil: Callable[[Path], None], newest: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / FOLDER
    with AuditTrail(folder, rotate_bytes=0) as trail:
        for client in range(3):
            trail.append([message(client)])
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    spoiled = trail_files(folder)[-1 if newest else 1]
    spoil(spoiled)
    found = verify(folder)
    assert isinstance(found, Broken) and found.file == spoiled.name
    assert fedmd("audit", tmp_path, "--verify") == 1
    for command in (["audit", str(tmp_path)], ["quarantine", str(tmp_path), "list"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        assert stopped.value.code == 2
        assert "the trail cannot be read" in capsys.readouterr().err
    if newest:
        with pytest.raises(ConfigError, match="nothing can be appended"):
            AuditTrail(folder).__enter__()
    assert isinstance(verify(whole), Intact)


def test_a_file_that_lost_its_head_is_broken_and_not_appended_to(tmp_path: Path) -> None:
    with AuditTrail(tmp_path) as trail:
        trail.append([message(0)])
    with sqlite3.connect(trail_files(tmp_path)[0]) as database:
        database.execute("DELETE FROM head")
    database.close()
    assert isinstance(verify(tmp_path), Broken)
    with pytest.raises(ConfigError, match="nothing can be appended"):
        AuditTrail(tmp_path).__enter__()
