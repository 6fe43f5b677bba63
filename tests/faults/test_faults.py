"""Every write of a run fails once, or is the last that its process makes: the run goes on as if nothing had happened.

`shim.c` strikes the calls, `runner.py` the runs. FEDMD_FAULTS=every strikes each call, not the first and the last of a
kind.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None or sys.platform != "linux", reason="needs Linux and a C compiler")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", library, HERE / "shim.c", "-ldl"], check=True)
    return library


def run(shim: Path, folder: Path, name: str, cases: str) -> list[dict[str, Any]]:
    """What the runner says; where it is cut short, cases.jsonl has what it had said."""
    command = [sys.executable, "-m", "tests.faults.runner", str(folder), name, cases]
    said = folder / "cases.jsonl"
    with said.open("w") as out:
        done = subprocess.run(
            command, env={**os.environ, "LD_PRELOAD": str(shim)}, stdout=out, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    peace, *found = map(json.loads, said.read_text().splitlines())
    assert peace["code"] == 0 and found
    return found


def is_one_sentence(ended: dict[str, Any]) -> bool:
    """As every trouble that is no fault of ours."""
    said = ended["said"]
    return ended["code"] == 2 and said.startswith("fedmd: ") and said.count("\n") == 1 and "Traceback" not in said


def check(found: dict[str, Any]) -> str | None:
    """What is wrong with a case; None where it is as promised."""
    if found["fault"] == "kill":
        if found["code"] != -9:
            return "the process was not killed"
    elif found["code"] != 0 and not is_one_sentence(found):
        return f"the run said {found['said']!r} and ended with {found['code']}"
    if found["resume"] is None or (found["resume"]["code"] != 0 and not is_one_sentence(found["resume"])):
        return f"going on with it: {found['resume']}"
    if found["again"] is not None and found["again"]["code"] != 0:
        return f"beginning it anew: {found['again']}"
    if not found["same"]:
        return "another result than the run's that was left in peace"
    return f"files were left: {found['left']}" if found["left"] else None


def assert_as_promised(cases: list[dict[str, Any]]) -> None:
    wrong = {f"{case['fault']} in call {case['number']}, {case['kind']}": check(case) for case in cases}
    assert not {case: problem for case, problem in wrong.items() if problem is not None}


def test_two_of_a_runs_writes(shim: Path, tmp_path: Path) -> None:
    """The two that were, or could be, worst: amid a checkpoint, and where a round is put on record."""
    cases = run(shim, tmp_path, "small", "kill write safetensors' own file,EIO fdatasync audit/trail-N.sqlite-wal")
    assert [case["code"] for case in cases] == [-9, 2]
    assert_as_promised(cases)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("mode", ["stream", "update"])
def test_each_kind_of_write(shim: Path, tmp_path: Path, mode: str) -> None:
    cases = run(shim, tmp_path, mode, os.environ.get("FEDMD_FAULTS", "kinds"))
    struck = {case["kind"] for case in cases}
    for file in ("checkpoint.safetensors", "metrics.jsonl", "summary.json", "verdicts.parquet", "truth.json"):
        assert any(file in kind for kind in struck), file
    assert any("quarantine/client" in kind for kind in struck) and any("audit/trail" in kind for kind in struck)
    assert_as_promised(cases)
