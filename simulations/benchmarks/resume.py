"""kill -9 of a run's server at random moments: does every run, resumed, end as if it had been left in peace?

    python simulations/benchmarks/resume.py --points 20 --folder /tmp/killed

A tiny attacked run with everything that a checkpoint must hold (momentum, lagging history, quarantine with a full
store, attackers who agree on when to stop) is killed at `points` moments, drawn by `--seed`: every other one at some
time after some round, the others at one of the places between two writes where half of a round is on disk. Then all
are resumed, beside a run that is left in peace, and compared with it: metrics and summary (times aside), verdicts,
models and stored batches byte for byte, and the audit trail's records in force. One JSON object at the end; exit code 1
when anything differs or a process of a killed run is left.
"""

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedmd.audit.reader import Intact, read_live, verify
from fedmd.deploy.processes import Processes
from fedmd.rounds.folder import noted_config
from fedmd.runs.compose import compose

ROUNDS = 10
SETTINGS = [
    "experiment=smoke", "defense=dsc", "threshold.fpr=0.3", "training.burn_in.epochs=4", "training.online.momentum=0.9",
    "history=lag", "history.lag=2", "stream.clean_rounds=3", "stream.accumulative_rounds=4", "stream.recovery_rounds=2",
    "attack.stop_error_rise=0.02", "quarantine=evidence", "quarantine.false_alarms=350", "quarantine.rounds=2",
    "quarantine.max_rounds=2", "runtime.device=cpu", "runtime.progress=false",
]  # fmt: skip
# What is about to be called (for the n-th time) when the process ends: a place between two writes. After a #
# stands what the path of a file to be replaced must contain.
SEAMS = {
    "recorded, the model not moved": ("fedmd.rounds.stream:StreamServer.learn", ROUNDS),
    "the model moved, no metrics": ("fedmd.report.recorder:RunRecorder.record", ROUNDS),
    "half a round's verdicts": ("fedmd.storage:os.replace#.arrow", ROUNDS),
    "metrics, no checkpoint": ("fedmd.rounds.checkpoint:Checkpoints.save", ROUNDS + 1),
    "half a checkpoint": ("fedmd.storage:os.replace#/checkpoint.safetensors", ROUNDS + 1),
    "half a batch in the quarantine store": ("fedmd.storage:os.replace#/round-", 4),
    "a checkpoint, old batches still kept": ("fedmd.rounds.gate:Gate.commit", ROUNDS),
    "all rounds, verdicts in parts": ("fedmd.report.verdicts:join_parts", 1),
    "no summary": ("fedmd.runs.federation:write_summary", 1),
    "a summary, parts left": ("fedmd.runs.federation:discard_parts", 1),
}


def main() -> int:
    """0 when every killed run ended as the one in peace."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=["inline", "ray"], default="ray")
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    machine = [f"runtime.cache_dir={options.folder}/cache", f"runtime.engine={options.engine}"]
    moments, left = {}, 0
    for point in range(options.points):
        folder = options.folder / f"killed-{point:02d}"
        chance = random.Random(f"{options.seed} {point}")
        with Processes(options.folder / "logs", {}) as processes:
            kill = kill_at_a_seam if point % 2 else kill_after_a_round
            moments[folder] = kill(processes, folder, [*SETTINGS, *machine, f"hydra.run.dir={folder}"], chance)
            left += len(survivors(processes))
        left += len(processes.left())
        print(f"{folder.name}: {moments[folder]}", flush=True)
    peace = options.folder / "peace"
    resume_all(list(moments), peace, [*SETTINGS, *machine, f"hydra.run.dir={peace}"])
    found = {folder.name: {"killed": moments[folder], "differs": differences(folder, peace)} for folder in moments}
    resumed = Counter("as in peace" if not point["differs"] else "different" for point in found.values())
    print(json.dumps({"points": found, "result": dict(resumed), "processes left": left}, indent=2))
    return 0 if resumed["as in peace"] == options.points and left == 0 else 1


def kill_after_a_round(processes: Processes, folder: Path, overrides: list[str], chance: random.Random) -> str:
    """SIGKILL once metrics.jsonl has so many lines, and some milliseconds later."""
    rounds, delay = chance.randrange(ROUNDS), chance.uniform(0, 0.2)
    metrics = folder / "metrics.jsonl"
    processes.start(folder.name, ["fedmd", "run", *overrides])
    processes.wait_for(
        f"round {rounds}",
        lambda: metrics.exists() and len(metrics.read_bytes().splitlines()) >= rounds,
        timeout_s=600,
        needs=[folder.name],
    )
    time.sleep(delay)
    processes.kill(folder.name)
    return f"after {rounds} rounds and {1000 * delay:.0f} ms"


def kill_at_a_seam(processes: Processes, folder: Path, overrides: list[str], chance: random.Random) -> str:
    """The process ends itself, by SIGKILL, at one of SEAMS."""
    seam = chance.choice(list(SEAMS))
    place, most = SEAMS[seam]
    call = chance.randint(1, most)
    processes.start(folder.name, [sys.executable, __file__, "--child", place, str(call), *overrides])
    deadline = time.monotonic() + 600
    while processes.exit_code(folder.name) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    code = processes.exit_code(folder.name)
    if code not in (0, -signal.SIGKILL):  # 0: a place that this run came to less often
        raise RuntimeError(f"{folder}: {seam}: exit code {code}\n{processes.tail(folder.name)}")
    return f"{seam}, call {call}" + (" (never came)" if code == 0 else "")


def survivors(processes: Processes) -> list[int]:
    """What is left of a killed run after a while, Ray's two idle agents aside, which may outlive their raylet.

    `processes` ends these, too, with its block.
    """
    deadline = time.monotonic() + 60
    while (left := [pid for pid in processes.left() if not is_agent(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left


def is_agent(pid: int) -> bool:
    """Whether this is Ray's DashboardAgent or RuntimeEnvAgent."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith((b"ray::DashboardAgent", b"ray::RuntimeEnvAgent"))
    except OSError:  # gone meanwhile
        return True


def child(place: str, call: int, overrides: list[str]) -> None:
    """`fedmd run`, but the `call`-th time it comes to `place` is its end."""
    import importlib

    from fedmd.cli import main as cli

    place, _, target = place.partition("#")
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def fatal(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += not target or target in str(args[-1])
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(owner, name, fatal)
    cli.main(["run", *overrides])


def resume_all(folders: list[Path], peace: Path, overrides: list[str]) -> None:
    """Go on with every run in `folders`, and make the one in peace, one after the other."""
    from fedmd.rounds.checkpoint import tidy
    from fedmd.rounds.folder import has_finished
    from fedmd.runs.simulation import Cell, simulate

    finished = [folder for folder in folders if has_finished(folder)]
    for folder in finished:
        tidy(folder)
    going_on = [Cell(noted_config(folder), folder, resume=True) for folder in folders if folder not in finished]
    simulate([Cell(compose(overrides).config, peace), *going_on])


def differences(folder: Path, peace: Path) -> list[str]:
    """The names of what is not as in the run in peace."""
    found = [name for name, read in WHAT.items() if read(folder) != read(peace)]
    state = verify(folder / "audit")
    if not isinstance(state, Intact):
        found.append(f"the audit trail's chain: {state.reason}")
    return found


def without_times(value: Any) -> Any:
    """`value` without its wall_s."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "wall_s"}
    return value


def files(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` by its place there."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# What must be equal, and how it is read.
WHAT: dict[str, Callable[[Path], Any]] = {
    "metrics.jsonl": lambda run: [without_times(json.loads(line)) for line in (run / "metrics.jsonl").open()],
    "summary.json": lambda run: without_times(json.loads((run / "summary.json").read_text())) | {"audit_head": None},
    "verdicts.parquet": lambda run: (run / "verdicts.parquet").read_bytes(),
    "truth.json": lambda run: (run / "truth.json").read_bytes(),
    "example_images.npz": lambda run: [path.read_bytes() for path in run.glob("example_images.npz")],
    "models.safetensors": lambda run: (run / "models.safetensors").read_bytes(),
    "the quarantine store": lambda run: files(run / "quarantine"),
    "the audit trail's records": lambda run: [record.entry for record in read_live(run / "audit")],
}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    sys.exit(main())
