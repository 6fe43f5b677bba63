"""kill -9 of the server, and `fedmd run resume=RUN_DIR`: the run ends as one that was left in peace."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmd.deploy.processes import Processes
from tests.command import fedmd

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]
SEED = "335"  # its second moment lies between a round's audit records and its step, its fourth within a batch
SEAMS = {"killed-01": "recorded, the model not moved", "killed-03": "half a batch in the"}
KILLS = int(os.environ.get("FEDMD_KILLS", "4"))
SCRIPT = Path(__file__).parents[2] / "simulations/benchmarks/resume.py"


@pytest.mark.parametrize(
    ("engine", "points"),
    [("inline", 2), *(pytest.param(engine, KILLS, marks=pytest.mark.slow) for engine in ("inline", "ray"))],
)
def test_moments_of_an_attacked_run(engine: str, points: int, tmp_path: Path) -> None:
    """After a round, between a round's audit records and its step, within a batch for the store: see the script."""
    command = [sys.executable, str(SCRIPT), "--points", str(points), "--seed", SEED, "--folder", str(tmp_path)]
    done = subprocess.run([*command, "--engine", engine], capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads(done.stdout[done.stdout.index("{") :])
    assert said["result"] == {"as in peace": points} and said["processes left"] == 0
    for point in SEAMS.keys() & said["points"].keys():
        killed = said["points"][point]["killed"]
        assert killed.startswith(SEAMS[point]) and "never" not in killed
    for folder in tmp_path.glob("killed-*"):
        left = {path.name for path in folder.iterdir()}
        assert {"config.json", "summary.json", "verdicts.parquet"} <= left
        assert not left & {"checkpoint.safetensors", "verdicts"}


def test_update_mode_from_the_command_line(
    runs: Any, cache: Path, small: list[str], metrics: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed when round 2's metrics are written and its checkpoint is not; resumed from another folder; then again."""
    folder = tmp_path / "run"
    update = ["mode=update", "defense=md_screen", "local.samples=40", "runtime.engine=inline", "runtime.figures=true"]
    base = [override for override in small if not override.startswith(("defense=", "threshold.", "training.online."))]
    settings = [*base, *update, "runtime.progress=false", f"runtime.cache_dir={cache}", f"hydra.run.dir={folder}"]
    kill = [sys.executable, str(SCRIPT), "--child", "fedmd.rounds.checkpoint:Checkpoints.save", "4", *settings]
    with Processes(tmp_path / "logs", {}) as processes:
        processes.start("killed", kill)
        processes.wait_for("its end", lambda: processes.exit_code("killed") is not None, timeout_s=300)
        assert processes.exit_code("killed") == -signal.SIGKILL, processes.tail("killed")
    assert processes.left() == []
    assert len(metrics(folder)) == 3 and (folder / "checkpoint.safetensors").exists()

    done = fedmd("run", "resume=run", cwd=tmp_path)
    assert done.code == 0, done.err[-2000:]
    assert f"run folder: {folder}" in done.out and (folder / "report.html").exists()
    whole = runs.folders["update"]
    assert metrics(folder) == metrics(whole)
    for name in ("verdicts.parquet", "truth.json"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    summaries = [json.loads((run / "summary.json").read_text()) for run in (folder, whole)]
    for summary in summaries:
        summary.pop("wall_s")
        summary.pop("audit_head")  # with the time in every record
    assert summaries[0] == summaries[1]

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    done = fedmd("run", "resume=run", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "holds a finished run; there is nothing to resume" in done.out and done.out.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
