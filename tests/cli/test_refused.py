"""A run in which every message was refused has learned nothing: it says so, and has an exit code of its own."""

import logging
from pathlib import Path

import pytest

from fedmd.cli.main import main
from fedmd.report.files import SUMMARY
from tests.runs.test_damage import SMALL


def ended(*arguments: str) -> object:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code


def test_a_run_whose_messages_were_all_refused_ends_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    settings = [*SMALL, f"runtime.cache_dir={tmp_path}", "runtime.figures=false"]
    folder = tmp_path / "run"
    assert ended("run", *settings, f"hydra.run.dir={folder}", "limits.max_message_bytes=1") == 3
    assert (folder / SUMMARY).exists()
    (warning,) = [said for said in map(logging.LogRecord.getMessage, caplog.records) if "every message" in said]
    assert str(folder) in warning and "limits.max_message_bytes=1" in warning
    caplog.clear()
    assert ended("run", *settings, f"hydra.run.dir={tmp_path / 'other'}") == 0
    assert not any("every message" in said for said in map(logging.LogRecord.getMessage, caplog.records))
