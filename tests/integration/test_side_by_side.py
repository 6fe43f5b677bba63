"""A study side by side: processes are killed, and the numbers are those of the runs one after another."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.command import of_session, session, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("cells on Ray")]
STUDY = ["compare", "experiment=smoke", "compare.seeds=[0,1]", "runtime.device=cpu", "stream.clean_rounds=40"]
WAYS = pytest.mark.parametrize("way", ["auto", "ray"])  # processes of this machine, or Ray's
Metrics = Callable[[Path], list[dict[str, Any]]]


def compare(folder: Path, cache: Path, *more: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """The study in a session of its own."""
    return session(*STUDY, f"hydra.sweep.dir={folder}", f"runtime.cache_dir={cache}", *more)


def under_way(folder: Path) -> list[Path]:
    """The metrics of cells that have rounds and no summary."""
    return [path for path in folder.rglob("metrics.jsonl") if not (path.parent / "summary.json").exists()]


@pytest.fixture(scope="module")
def in_peace(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One after another, in one process."""
    folder = tmp_path_factory.mktemp("peace") / "study"
    with compare(folder, cache, "runtime.engine=inline") as process:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    return folder


def same_numbers(folder: Path, in_peace: Path, metrics: Metrics) -> bool:
    cells = sorted(path.parent.relative_to(in_peace) for path in in_peace.rglob("metrics.jsonl"))
    assert len(cells) == 10
    return all(metrics(folder / cell) == metrics(in_peace / cell) for cell in cells)


@WAYS
def test_a_killed_worker_costs_no_number(
    way: str, in_peace: Path, cache: Path, tmp_path: Path, metrics: Metrics
) -> None:
    with compare(tmp_path, cache, f"runtime.engine={way}", "runtime.workers=2") as process:
        wait_for(lambda: under_way(tmp_path), 200)
        others = sorted(of_session(process.pid).items())[1:]
        workers = [pid for pid, command in others if "ray::computed" in command or "serve_forks" in command]
        assert workers
        os.kill(workers[-1], signal.SIGKILL)  # not the first, who forks
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert err.count("it is tried once more, from its checkpoint") == 1 and "Traceback" not in err
    assert "[ 10/10]" in out and json.loads((tmp_path / "comparison.json").read_text())
    assert same_numbers(tmp_path, in_peace, metrics)


@WAYS
@pytest.mark.parametrize(("how", "code"), [("SIGKILL", -9), ("SIGINT", 130), ("SIGTERM", 143)])
def test_a_study_that_is_ended_goes_on(
    how: str, code: int, way: str, in_peace: Path, cache: Path, tmp_path: Path, metrics: Metrics
) -> None:
    with compare(tmp_path, cache, f"runtime.engine={way}", "runtime.workers=2") as process:
        wait_for(lambda: under_way(tmp_path), 200)
        if how == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does, to the workers too
        else:
            os.kill(process.pid, getattr(signal, how))
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        assert "Traceback" not in err
        wait_for(lambda: not of_session(process.pid), 200)  # Ray has gone with it, its agents after a minute
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(before) < 10
    with compare(tmp_path, cache, "runtime.engine=inline") as process:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    assert f"10 cells, {len(before)} finished before" in out
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    assert same_numbers(tmp_path, in_peace, metrics)


@WAYS
def test_a_cell_that_always_fails_is_named_and_the_others_finish(way: str, cache: Path, tmp_path: Path) -> None:
    """A file stands where its audit trail must be."""
    broken = tmp_path / "cells" / "dsc" / "seed-0"
    broken.mkdir(parents=True)
    (broken / "audit").write_text("no folder")
    with compare(tmp_path, cache, f"runtime.engine={way}", "runtime.workers=2", "stream.clean_rounds=1") as process:
        out, err = process.communicate(timeout=600)
        assert process.returncode == 1, err
    *_, last = err.rstrip().splitlines()
    assert last.startswith("fedmd: 1 of 10 runs failed: DSC, seed 0 (") and str(broken / "traceback.txt") in last
    assert "[  9/10]" in out and (tmp_path / "comparison.json").exists() and (tmp_path / "report.html").exists()
    assert len(list(tmp_path.rglob("summary.json"))) == 9
