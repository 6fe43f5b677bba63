"""The trail of whole federations, and what `fedmd audit` makes of it."""

import csv
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedmd.audit.reader import read_live
from fedmd.cli import main as cli

pytestmark = pytest.mark.timeout(600)
CLIENTS, BATCH, ROUNDS = 4, 5, 4


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main([str(argument) for argument in arguments])
    return caught.value.code if isinstance(caught.value.code, int) else 0


def test_the_trail_agrees_with_the_verdicts(runs: Any) -> None:
    folder = runs.folders["base"]
    table = pd.read_parquet(folder / "verdicts.parquet")
    verdicts = [r.entry for r in read_live(folder / "audit") if r.entry.kind == "verdict"]
    assert [(e.round, e.client, e.index) for e in verdicts] == list(
        zip(table["round"], table["client"], table["index"], strict=True)
    )
    assert [e.action for e in verdicts] == table["action"].tolist()
    assert [e.discrepancy for e in verdicts] == table["discrepancy"].tolist()
    messages = [r.entry for r in read_live(folder / "audit") if r.entry.kind == "message"]
    assert len({e.content for e in messages}) == len(messages) == CLIENTS * ROUNDS


def test_the_same_seed_leaves_the_same_trail_but_for_the_times(runs: Any, on_ray: Any) -> None:
    trails = [
        [r.entry for r in read_live(folder / "audit") if r.entry.kind != "run"]
        for folder in (runs.folders["base"], runs.folders["again"], on_ray["base"])
    ]
    assert trails[0] == trails[1] == trails[2] and len(trails[0]) == CLIENTS * ROUNDS * (1 + BATCH)


def test_the_trail_of_mode_update_agrees_with_the_verdicts_on_any_number_of_workers(runs: Any, on_ray: Any) -> None:
    trails = []
    for folder in (runs.folders["update"], on_ray["update"]):
        trails.append([r.entry for r in read_live(folder / "audit") if r.entry.kind != "run"])
    assert trails[0] == trails[1]
    table = pd.read_parquet(runs.folders["update"] / "verdicts.parquet")
    verdicts = [entry for entry in trails[0] if entry.kind == "verdict"]
    assert [(e.round, e.client, e.index) for e in verdicts] == list(
        zip(table["round"], table["client"], table["index"], strict=True)
    )
    assert [e.action for e in verdicts] == table["action"].tolist() and len(verdicts) == CLIENTS * ROUNDS
    assert [e.discrepancy is not None for e in verdicts] == table["discrepancy"].notna().tolist()


def test_a_refused_message_is_told(runs: Any) -> None:
    refused = [r.entry for r in read_live(runs.folders["broken"] / "audit") if r.entry.action == "rejected"]
    assert [(e.kind, e.round, e.client) for e in refused] == [("message", 1, 1)]
    assert "my disk is gone" in str(refused[0].reason)


def test_audit(runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs.folders["base"], folder)
    assert call("audit", folder) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split()[:4] for row in rows] == [[str(c), str(ROUNDS), "0", "0"] for c in range(CLIENTS)]
    assert call("audit", folder, "--client", 2) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + ROUNDS
    assert call("audit", folder, "--export", "csv") == 0
    capsys.readouterr()
    with (folder / "audit.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 1 + CLIENTS * ROUNDS * (1 + BATCH)
    table = pd.read_parquet(folder / "verdicts.parquet")
    assert [float(line["discrepancy"]) for line in lines if line["kind"] == "verdict"] == table["discrepancy"].tolist()
    assert call("audit", folder, "--verify") == 0
    assert capsys.readouterr().out.startswith("intact: 97 records in 1 files")


def test_a_changed_trail_is_found(runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    shutil.copytree(runs.folders["base"], folder)
    with sqlite3.connect(folder / "audit" / "trail-000001.sqlite") as database:
        (trigger,) = database.execute("SELECT sql FROM sqlite_master WHERE name = 'no_update'").fetchone()
        database.execute("DROP TRIGGER no_update")
        database.execute("UPDATE records SET body = replace(body, '\"client\":1', '\"client\":3') WHERE seq = 9")
        database.execute(trigger)
    database.close()
    assert call("audit", folder, "--verify") == 1
    assert "BROKEN" in capsys.readouterr().out
