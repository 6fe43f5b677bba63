"""What a user types, from a folder of the user's: run, sweep, compare, and all of it again."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import command

pytestmark = pytest.mark.timeout(600)
Metrics = Callable[[Path], list[dict[str, Any]]]


def fedmd(*arguments: str, cwd: Path) -> list[str]:
    """The lines that `fedmd arguments...` prints; it must succeed."""
    done = command.fedmd(*arguments, cwd=cwd)
    assert done.code == 0 and "Traceback" not in done.err, done.err
    return done.out.splitlines()


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("summary.json")}


def test_run_and_sweep(small: list[str], cache: Path, runs: Any, metrics: Metrics, tmp_path: Path) -> None:
    common = [*small, f"runtime.cache_dir={cache}", "runtime.engine=inline"]
    typed = [command.FEDMD, "run", *common, "hydra.run.dir=sweep/seed-0"]  # another process, from start to end
    done = subprocess.run(typed, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    printed = done.stdout.splitlines()
    folder = tmp_path / "sweep" / "seed-0"
    assert sum("] round " in line for line in printed) == 4
    assert any(str(folder) in line for line in printed)
    assert (folder / ".hydra" / "config.yaml").exists()
    assert metrics(folder) == metrics(runs.folders["base"])

    before = times(tmp_path)
    sweep = ["run", "-m", *common, "hydra.sweep.dir=sweep", "hydra.sweep.subdir=seed-${seed}"]
    printed = fedmd(*sweep, "seed=0", cwd=tmp_path)
    assert "1 of 1 runs are finished and skipped" in printed
    assert not any("] round " in line for line in printed)
    assert times(tmp_path) == before


def test_drift_of_the_threshold_is_said_and_kept(
    small: list[str], cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Everybody poisons with a large radius, and a rival is the detector."""
    others = [setting for setting in small if not setting.startswith(("defense", "threshold"))]
    arguments = [*others, "defense=drop", "defense.detector=pixel_distance", "threshold.fpr=0.1"]
    arguments += [
        "attack.fraction=1",
        "attack.radius=1",
        f"runtime.cache_dir={cache}",
        "hydra.run.dir=run",
        "runtime.engine=inline",
    ]
    done = command.fedmd("run", *arguments, cwd=tmp_path)
    assert done.code == 0, done.err
    assert sum(said.startswith("threshold drift: over the last rounds") for said in caplog.messages) == 1
    rounds = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rounds[0]["threshold_drift"] is None
    last = rounds[-1]["threshold_drift"]
    assert last["promised"] == 0.1 and last["rate"] > 0.4
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Threshold drift in" in page and "Pixel distance (the defence&#39;s)" in page
    baselines = json.loads((tmp_path / "run" / "summary.json").read_text())["detection"]["baselines"]
    assert baselines["pixel_distance"]["auroc"] > 0.9


def test_compare_and_resume(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    arguments = ["compare", "experiment=smoke", "compare.seeds=[0]", "hydra.sweep.dir=study", "runtime.device=cpu"]
    arguments += ["runtime.cache_dir=cache", "runtime.engine=inline"]
    printed = fedmd(*arguments, cwd=tmp_path)
    study = tmp_path / "study"
    assert any("5 cells, 0 finished before" in line for line in printed)
    summaries = [json.loads(Path(path).read_text()) for path in times(study)]
    assert len(summaries) == 5
    names = sorted((one["defense"]["name"], one["detection"]["sample"]["n_poisoned"] > 0) for one in summaries)
    assert names == [("dsc", False), ("dsc", True), ("frozen", False), ("none", False), ("none", True)]
    with (study / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["frozen", "no_attack", "undefended", "dsc", "dsc_no_attack"]
    finals = {row["arm"]: float(row["accuracy.final"]) for row in rows}
    assert sorted(finals.values()) == sorted(one["accuracy"]["final"] for one in summaries)
    for name in ("comparison.json", "table.md", "table.tex"):
        assert (study / name).stat().st_size > 0
    assert all(row["label"] in (study / "table.md").read_text() for row in rows)

    before = times(study)
    table, comparison = (study / "table.md").read_text(), (study / "comparison.json").read_text()
    printed = fedmd(*arguments, cwd=tmp_path)
    assert any("5 cells, 5 finished before" in line for line in printed)
    assert times(study) == before
    assert ((study / "table.md").read_text(), (study / "comparison.json").read_text()) == (table, comparison)
