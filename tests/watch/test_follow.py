"""What a watcher is told of runs that are being written."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedmd.cli.main import main
from fedmd.config import ConfigError
from fedmd.report.files import read_metrics
from fedmd.report.replay import recorded_rounds
from fedmd.rounds.folder import is_served, sole_server
from fedmd.runs.cell import Cell, CellsFailed, Failure, Watcher
from fedmd.runs.plan import compose_study
from fedmd.runs.study import run_study
from fedmd.types import Json, RoundReport, Stage
from fedmd.watch.folder import State, seen_runs
from fedmd.watch.follow import Follower
from tests.watch.conftest import CONFIG, Writing, report


class Noting(Watcher):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def say(self, text: str) -> None:
        self.told.append(("say", text))

    def begin(self, cells: Sequence[Cell], finished: int) -> None:
        self.told.append(("begin", [cell.name for cell in cells], finished))

    def stage(self, cell: Cell, stage: Stage) -> None:
        self.told.append(("stage", cell.name))

    def round(self, cell: Cell, report: RoundReport) -> None:
        self.told.append(("round", cell.name, report.round))

    def finished(self, cell: Cell, summary: Json) -> None:
        self.told.append(("finished", cell.name, summary["accuracy"]["final"]))

    def failed(self, failure: Failure, *, again: bool) -> None:
        self.told.append(("failed", failure.cell.name, failure.reason))

    def new(self) -> list[tuple[object, ...]]:
        """Since it was last asked."""
        told, self.told = self.told, []
        return told


def finish(folder: Path) -> None:
    summary = {"accuracy": {"final": 0.9}, "config": json.loads(CONFIG.to_json())}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_a_report_comes_back_from_the_files_as_it_was(writing: Writing) -> None:
    metrics = read_metrics(writing.folder)
    assert len(metrics) == 3  # not the half one
    for number, found in enumerate(recorded_rounds(writing.folder, metrics, 1), 1):
        made = report(number)
        for name in ("round", "phase", "accuracy", "loss", "rejections", "bytes_received", "wall_s", "quarantined"):
            assert getattr(found, name) == getattr(made, name), name
        for name in ("before", "after", "steps", "actions"):
            np.testing.assert_array_equal(getattr(found.verdicts, name), getattr(made.verdicts, name))
        assert found.verdicts.threshold == 0.5 and found.verdicts.discrepancy is None
        np.testing.assert_array_equal(found.clients, made.clients)


def test_a_run_is_told_as_it_goes_on(writing: Writing) -> None:
    watcher, follower = Noting(), Follower(writing.folder)
    with writing.alive():
        assert not follower.look(watcher)
        assert watcher.new() == [("begin", ["run"], 0), ("stage", "run"), *(("round", "run", i) for i in range(3))]
        assert not follower.look(watcher) and watcher.new() == []
        writing.round()
        assert not follower.look(watcher) and watcher.new() == [("round", "run", 3)]
    assert not follower.look(watcher)
    assert watcher.new() == [("say", f"run: its server is gone; go on with fedmd run resume={writing.folder}")]
    finish(writing.folder)
    assert follower.look(watcher)
    assert watcher.new() == [("finished", "run", 0.9)]
    assert Follower(writing.folder).look(watcher)  # whoever comes late is told all of it
    assert [kind for kind, *_ in watcher.new()] == ["begin", "stage", *["round"] * 4, "finished"]


def test_rounds_that_are_repeated_after_a_crash_are_told_again(writing: Writing) -> None:
    watcher, follower = Noting(), Follower(writing.folder)
    follower.look(watcher)
    watcher.new()
    shutil.rmtree(writing.folder / "verdicts")
    (writing.folder / "metrics.jsonl").unlink()
    writing.done = 0
    writing.round()
    follower.look(watcher)
    writing.round()
    follower.look(watcher)
    assert [told for told in watcher.new() if told[0] == "round"] == [("round", "run", 1)]


def test_files_that_are_half_there_are_waited_for(writing: Writing) -> None:
    watcher, follower = Noting(), Follower(writing.folder)
    follower.look(watcher)
    watcher.new()
    whole = (writing.folder / "config.json").read_text()
    (writing.folder / "config.json").write_text(whole[:50])
    assert not follower.look(watcher) and watcher.new() == []
    (writing.folder / "config.json").write_text(whole)
    writing.round()
    assert not follower.look(watcher) and watcher.new() == [("round", "run", 3)]
    shutil.rmtree(writing.folder)
    with pytest.raises(ConfigError, match="there is no folder"):
        follower.look(watcher)


def test_the_clock_says_when_a_round_was(writing: Writing) -> None:
    follower = Follower(writing.folder)
    seen: list[float] = []

    class Clocked(Watcher):
        def round(self, cell: Cell, report: RoundReport) -> None:
            seen.append(follower.clock())

    follower.look(Clocked())
    np.testing.assert_allclose(np.diff(seen), 0.75)  # the attack's seconds are part of the transport's


def test_a_sweep_counts_who_is_finished_waits_and_fails(tmp_path: Path) -> None:
    done, failing, waiting = (Writing(tmp_path / name) for name in ("a", "b", "c"))
    finish(done.folder)
    watcher, follower = Noting(), Follower(tmp_path)
    assert not follower.look(watcher)
    assert watcher.new() == [("begin", ["b", "c"], 1)]
    failing.round()
    (failing.folder / "traceback.txt").write_text("Traceback:\nValueError: no\n")
    assert not follower.look(watcher)
    assert watcher.new() == [("stage", "b"), ("round", "b", 0), ("failed", "b", "ValueError: no")]
    with failing.alive():  # it is tried again
        assert not follower.look(watcher)
    assert watcher.new()[0] == ("begin", ["b", "c"], 1)
    finish(failing.folder)
    finish(waiting.folder)
    assert follower.look(watcher)
    assert [told[:2] for told in watcher.new()] == [("finished", "b"), ("stage", "c"), ("finished", "c")]


def test_a_study_notes_all_its_runs_before_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[State] = []

    def simulate(cells: Sequence[Cell], watcher: Watcher, **_: object) -> list[Failure]:
        states.extend(run.state for run in seen_runs(tmp_path))
        return []

    monkeypatch.setattr("fedmd.runs.study.simulate", simulate)
    with pytest.raises(CellsFailed):
        run_study(compose_study(["experiment=smoke", f"hydra.sweep.dir={tmp_path}"]), Watcher())
    assert states == [State.WAITING] * 10


def test_whoever_looks_keeps_no_server_out(tmp_path: Path) -> None:
    assert not is_served(tmp_path)
    with sole_server(tmp_path):
        assert is_served(tmp_path)
        with pytest.raises(ConfigError, match="another process"), sole_server(tmp_path):
            pass
    assert not is_served(tmp_path)


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_where_nothing_lies_one_sentence_says_so(
    path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for serve in ([], ["--serve", "0"]):
        with pytest.raises(SystemExit) as ended:
            main(["watch", path, *serve])
        assert ended.value.code == 2
        error = capsys.readouterr().err
        assert error.startswith("fedmd: fedmd watch: ") and error.count("\n") == 1 and "the folder of a run" in error


def test_the_terminal_is_told_to_the_end(writing: Writing, capsys: pytest.CaptureFixture[str]) -> None:
    finish(writing.folder)
    with pytest.raises(SystemExit) as ended:
        main(["watch", str(writing.folder)])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("] round " in line for line in lines) == 3
    assert "accuracy  60.0 %" in lines[2] and f"{0.45:.3f} (threshold 0.500)" in lines[2]
