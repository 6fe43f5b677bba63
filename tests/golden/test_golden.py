"""The golden runs must come out as they did before the redesign: `golden.json` says how, bit for bit.

Other machines round differently, and signed steps make much of the last digit. There the old code is taken from the
project's history and both sides are run; where there is no history, only what no rounding can change is compared.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.golden.record import FIXTURE, machine, record
from tests.golden.runs import RESUMED, RUNS

CELLS = {**{name: (run, None) for name, run in RUNS.items()}, **RESUMED}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The fixture; on another machine what the old code makes here, or {} where that cannot be had."""
    fixture: dict[str, Any] = json.loads(FIXTURE.read_text())
    if fixture["machine"] == machine():
        runs: dict[str, Any] = fixture["runs"]
        return runs
    old, made = tmp_path_factory.mktemp("old"), tmp_path_factory.mktemp("made") / "golden.json"
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", fixture["commit"]], capture_output=True)
    if archive.returncode != 0:
        return {}
    subprocess.run(["tar", "-x", "-C", str(old)], input=archive.stdout, check=True)
    command = [sys.executable, "-m", "tests.golden.record", str(made)]
    subprocess.run(command, cwd=old, env={**os.environ, "PYTHONPATH": str(old)}, check=True)
    runs = json.loads(made.read_text())["runs"]
    return runs


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all: burn-in is trained once a setting."""
    return tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", CELLS)
def test_a_golden_run_comes_out_as_before(name: str, golden: dict[str, Any], cache: Path) -> None:
    overrides, stop_after = CELLS[name]
    found = record(cache, name, overrides, stop_after)
    if not golden:
        expected = json.loads(FIXTURE.read_text())["runs"][name]
        assert found["audit_records"] > 0 and len(found["metrics"]) == len(expected["metrics"])
        pytest.skip("another machine, and no history to take the old code from")
    expected = golden[name]
    assert found["metrics"] == expected["metrics"]
    assert found["summary"] == expected["summary"]
    assert found["audit_records"] == expected["audit_records"]
    assert found["sha256"] == expected["sha256"]


def test_somebody_is_in_quarantine_in_the_runs_of_its_name() -> None:
    """Whoever changes what evidence is must not leave nobody to be caught: also `tests/faults` strikes these runs."""
    runs = json.loads(FIXTURE.read_text())["runs"]
    for name in (name for name in RUNS if "quarantine" in name):
        assert [row for row in runs[name]["metrics"] if "quarantine" in str(row["rejections"])], name
