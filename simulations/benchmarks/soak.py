"""Whether a server that goes on for thousands of rounds stays as it was: its memory, its open files, its pace.

    python -m simulations.benchmarks.soak --folder /tmp/soak --rounds 2000 --ray-rounds 300
    python -m simulations.benchmarks.soak --plot simulations/results/soak

Each mode, attacked, screened and with quarantine, on each engine, in a process of its own. A row every 25 rounds goes
into FOLDER/rows.csv as it is known. --plot draws soak.png of the rows in a folder, and prints, as one JSON object, by
how much memory and open files have grown from the first fifth of a run to its last.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from fedmd.runs.cell import Cell, Watcher
from fedmd.types import RoundReport

EVERY = 25
SMALL = [
    "data=digits", "model=cnn", "model.width=4", "data.splits.burn_in=150", "data.splits.trusted=40",
    "data.splits.attacker=40", "data.splits.test=200", "training.burn_in.epochs=12", "federation.clients=5",
    "attack.fraction=0.4", "runtime.device=cpu", "stream.batch_size=6", "stream.clean_rounds=2",
    "stream.accumulative_rounds=3", "stream.trigger_rounds=1", "training.online.lr=0.01", "quarantine=evidence",
    "quarantine.rounds=20", "quarantine.max_rounds=20", "runtime.evaluate_every=25",
]  # fmt: skip
MODES = {
    "stream": [*SMALL, "quarantine.false_alarms=50"],
    "update": [
        *SMALL, "mode=update", "local.batch_size=10", "local.samples=20", "local.lr=0.01",
        "defense=discrepancy_screening", "attack=sign_flip", "quarantine.false_alarms=800",
    ],
}  # fmt: skip


class Gauge(Watcher):
    """Writes a row every EVERY rounds."""

    def __init__(self, rows: Path, mode: str, engine: str) -> None:
        self._rows, self._mode, self._engine = rows, mode, engine
        self._since = time.perf_counter()

    def round(self, cell: Cell, report: RoundReport) -> None:
        """One of `cell` is over."""
        if (report.round + 1) % EVERY:
            return
        now = time.perf_counter()
        tree = [os.getpid(), *descendants(os.getpid())]
        row = {
            "mode": self._mode,
            "engine": self._engine,
            "round": report.round + 1,
            "server_mib": round(resident(os.getpid()) / 2**20, 2),
            "all_mib": round(sum(map(resident, tree)) / 2**20, 2),
            "open_files": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
            "seconds_a_round": round((now - self._since) / EVERY, 4),
            "in_quarantine": len(report.quarantined),
        }
        with self._rows.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        self._since = time.perf_counter()


def resident(pid: int) -> int:
    """Bytes of memory that a process has; shared pages count for each."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # it has ended
        return 0


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [*children, *(each for child in children for each in descendants(child))]


def soak(folder: Path, mode: str, engine: str, rounds: int) -> None:
    """One run in this process."""
    from fedmd.runs.compose import compose
    from fedmd.runs.simulation import simulate

    place = folder / f"{mode}-{engine}"
    spread = ["runtime.spread=clients"] if engine == "ray" else []
    settings = [*MODES[mode], *spread, f"stream.recovery_rounds={rounds - 6}", f"runtime.engine={engine}"]
    composed = compose([*settings, f"hydra.run.dir={place}", f"runtime.cache_dir={folder}/cache"])
    simulate([Cell(composed.config, place)], Gauge(folder / "rows.csv", mode, engine))


def growth(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Of each run: the median of its last fifth less that of its first fifth (without the first 100 rounds)."""
    grown = {}
    for (mode, engine), run in rows.groupby(["mode", "engine"], sort=False):
        last = run["round"].max()
        early = run[(run["round"] > min(100, last / 5)) & (run["round"] <= max(200, last / 5))]
        late = run[run["round"] > 0.8 * last]
        grown[f"{mode}, {engine}"] = {
            "rounds": int(last),
            **{
                name: round(float(late[name].median() - early[name].median()), 3)
                for name in ("server_mib", "all_mib", "open_files", "threads", "seconds_a_round")
            },
        }
    return grown


def plot(folder: Path) -> None:
    """Draw the rows of a folder."""
    import matplotlib.pyplot as plt

    rows = pd.read_csv(folder / "rows.csv")
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
    for axis, (name, label) in zip(
        axes,
        {
            "server_mib": "server's memory (MiB)",
            "open_files": "open files",
            "seconds_a_round": "seconds a round",
        }.items(),
        strict=True,
    ):
        for (mode, engine), run in rows.groupby(["mode", "engine"], sort=False):
            axis.plot(run["round"], run[name], label=f"{mode}, {engine}", linewidth=1)
        axis.set(xlabel="round", title=label, ylim=(0, None))
    axes[0].legend(fontsize=7, loc="lower right")
    figure.savefig(folder / "soak.png", dpi=110)
    print(json.dumps(growth(rows)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--ray-rounds", type=int, default=300)
    parser.add_argument("--one", nargs=2, metavar=("MODE", "ENGINE"), help="only this run, in this process")
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    if options.plot is not None:
        plot(options.plot)
    elif options.one is not None:
        soak(options.folder, *options.one, options.rounds if options.one[1] == "inline" else options.ray_rounds)
    else:
        options.folder.mkdir(parents=True, exist_ok=True)
        for engine in ("inline", "ray"):
            for mode in MODES:
                lengths = ["--rounds", str(options.rounds), "--ray-rounds", str(options.ray_rounds)]
                place = ["--folder", str(options.folder)]
                command = [sys.executable, "-m", "simulations.benchmarks.soak", "--one", mode, engine, *place, *lengths]
                subprocess.run(command, check=True)
        plot(options.folder)


if __name__ == "__main__":
    main()
