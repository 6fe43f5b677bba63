"""`fedmd status`: a run while it goes on, killed, and finished, from its folder alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedmd.cli.main import main
from fedmd.rounds.folder import note_config, sole_server
from fedmd.runs.compose import compose


def status(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit code, and the lines by their first word."""
    with pytest.raises(SystemExit) as ended:
        main(["status", str(folder)])
    lines = (line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    return int(str(ended.value.code)), {word: rest for word, rest in lines}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three rounds are on disk, a fourth is being written."""
    note_config(tmp_path, compose(["experiment=smoke", "defense=drop"]).config)
    rows: list[dict[str, Any]] = [
        {
            "round": round,
            "phase": "clean",
            "accuracy": None if round == 2 else 0.5 + 0.1 * round,
            "corrected_share": 0.0,
            "rejected_share": 0.1 * round,
            "rejections": [{"client": 3, "reason": "late"}] if round == 1 else [],
        }
        for round in range(3)
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"round": 3, "pha')
    return tmp_path


def test_while_it_goes_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sole_server(run):
        code, told = status(run, capsys)
    assert (code, told["state"]) == (0, "running")
    assert told["rounds"] == "3 of 4, clean" and told["accuracy"] == "60.0 % after round 1"
    assert told["flagged"] == "0.0 % of the samples corrected, 10.0 % rejected"
    assert told["refused"] == "1 messages, the latest: client 3, late"
    assert told["defence"].startswith("drop, attack accumulative")


def test_killed_and_finished(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = status(run, capsys)
    assert code == 1 and told["state"] == f"stopped; go on with fedmd run resume={run}"
    (run / "summary.json").write_text(json.dumps({"schema": 2, "warnings": ["nobody attacks"]}))
    code, told = status(run, capsys)
    assert (code, told["state"], told["mind"]) == (0, "finished", "nobody attacks")
