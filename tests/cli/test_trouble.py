"""Trouble with files and pipes costs one sentence and exit code 2, never a traceback."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from fedmd import storage
from fedmd.audit import trail as trails
from fedmd.audit.entries import Entry
from fedmd.audit.reader import trail_files
from fedmd.audit.trail import FOLDER, AuditTrail
from fedmd.cli.main import main
from tests.runs.test_damage import SMALL


def message(client: int) -> Entry:
    return Entry("message", "accepted", round=client, client=client)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    with AuditTrail(folder / FOLDER) as trail:
        trail.append([message(client) for client in range(3000)])
    return folder


def one_sentence(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    told = capsys.readouterr().err
    assert end.value.code == 2 and told.startswith("fedmd: ") and told.count("\n") == 1, told
    return told


@pytest.mark.parametrize("arguments", [["--verify"], [], ["--client", "3"]])
def test_a_reader_that_goes_away_is_no_error(run: Path, arguments: list[str]) -> None:
    """As `fedmd audit RUN | head -0`: the pipe has no other end any more when fedmd writes."""
    reading, writing = os.pipe()
    os.close(reading)
    program = "import sys; from fedmd.cli.main import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", program, "audit", str(run), *arguments]
    with open(writing, "w") as pipe:
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == "" and ended.returncode == 141  # 128 + SIGPIPE, as of any other tool


def forge(file: Path, *statements: str) -> None:
    with sqlite3.connect(file) as database:
        for name in ("no_update", "no_delete"):
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
    database.close()


ODD = [
    "UPDATE records SET body = '[]' WHERE seq = 2",
    "UPDATE records SET body = '7' WHERE seq = 2",
    'UPDATE records SET body = \'{"kind": "message"\' WHERE seq = 2',
    "UPDATE records SET body = x'ff00fe' WHERE seq = 2",
    'UPDATE records SET body = replace(body, \'"client":1\', \'"client":"one"\') WHERE seq = 2',
    "UPDATE records SET body = replace(body, '\"client\":1', '\"client\":[1]') WHERE seq = 2",
    'UPDATE records SET body = replace(body, \'"action":"accepted"\', \'"action":{}\') WHERE seq = 2',
    "UPDATE records SET hash = 7 WHERE seq = 2",
    "UPDATE head SET hash = 7",
    'UPDATE records SET body = replace(body, \'"kind":"message"\', \'"kind":"rewind"\') WHERE seq = 2',
    'UPDATE records SET body = replace(body, \'"time":\', \'"time":1e999,"was":\') WHERE seq = 2',
    "ALTER TABLE records RENAME COLUMN body TO content",
    "DROP TABLE records",
]


@pytest.mark.parametrize("statement", ODD)
@pytest.mark.parametrize("arguments", [[], ["--client", "1"], ["--export", "csv"]])
def test_odd_records_and_tables_are_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], statement: str, arguments: list[str]
) -> None:
    """Whatever still reads as a trail may be shown; nothing ends in a traceback, and --verify finds it."""
    forge(trail_files(run / FOLDER)[0], statement)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(["audit", str(run), *arguments])
    told = capsys.readouterr().err
    assert end.value.code in (0, 2) and told.count("\n") == (end.value.code == 2), told
    with pytest.raises(SystemExit) as end:
        main(["audit", str(run), "--verify"])
    assert end.value.code == 1 and capsys.readouterr().out.startswith("BROKEN")


def test_a_text_client_id_is_one_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(trail_files(run / FOLDER)[0], ODD[4])
    assert "client" in one_sentence(capsys, "audit", run)
    assert "--client" in one_sentence(capsys, "audit", run, "--client", "one")


def refuse(number: int) -> Any:
    def refusing(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refusing


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_csv_that_cannot_be_written_is_one_sentence(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(storage.os, "fsync", refuse(number))
    assert os.strerror(number) in one_sentence(capsys, "audit", run, "--export", "csv")
    assert sorted(path.name for path in run.iterdir()) == [FOLDER]


# -- a full disk ----------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_run_on_a_full_disk_is_one_sentence(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = one_sentence(capsys, "run", *SMALL, f"hydra.run.dir={tiny}/run", f"runtime.cache_dir={tmp_path}/cache")
    assert "No space left on device" in told or "disk is full" in told


def test_a_run_in_a_folder_that_is_read_only_is_one_sentence(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", tiny], check=True)
    told = one_sentence(capsys, "run", *SMALL, f"hydra.run.dir={tiny}/run", f"runtime.cache_dir={tmp_path}/cache")
    assert os.strerror(errno.EROFS) in told


@pytest.mark.parametrize("what", ["tensors", "trail", "text"])
def test_each_writer_on_a_full_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What each library says when the disk is full, where no small file system can be made."""
    if what == "tensors":
        import safetensors.torch

        def save_file(*_: object, **__: object) -> NoReturn:
            raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

        monkeypatch.setattr(safetensors.torch, "save_file", save_file)
    elif what == "trail":

        def insert(database: sqlite3.Connection, *_: object) -> None:
            (pages,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count={pages}")
            database.execute("INSERT INTO records VALUES (99, ?, '')", ("x" * 10**6,))

        monkeypatch.setattr(trails, "_insert", insert)
    else:
        monkeypatch.setattr(storage, "write_json", refuse(errno.ENOSPC))
        monkeypatch.setattr("fedmd.report.files.write_json", refuse(errno.ENOSPC))
    folder = tmp_path / "run"
    told = one_sentence(capsys, "run", *SMALL, f"hydra.run.dir={folder}", f"runtime.cache_dir={tmp_path}")
    assert "No space left on device" in told or "disk is full" in told
    assert json.loads((folder / "config.json").read_text()) and not list(folder.rglob(".*.tmp"))
