"""What a row of the benchmark is, and how it is measured: interleaved pairs, the median of their ratios.

Ours and the baseline take turns, so that whatever else the machine does falls on both; of each pair it is recorded how
many cores other processes kept busy meanwhile. A row is one number, the median of its pairs' ratios.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Literal

ROOT = Path(__file__).resolve().parents[2]
PAIRS, QUICK_PAIRS = 5, 2
Pair = tuple[float, float]  # what ours took and what the baseline took: seconds, bytes


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `pairs(n)` measures n times and yields (ours, baseline) each time, both in `unit`. The ratio of a pair is ours over
    baseline where the goal is "at most" so much, and baseline over ours (how many times better) where it is "at least".
    """

    name: str
    what: str
    goal: Literal["at most", "at least"]
    to_reach: float
    stretch: float
    pairs: Callable[[int], Iterator[Pair]]
    unit: str = "s"

    def ratio(self, pair: Pair) -> float:
        """Of one pair, oriented as the goal is."""
        ours, baseline = pair
        return ours / baseline if self.goal == "at most" else baseline / ours

    def reached(self, ratio: float, bound: float) -> bool:
        """Whether `ratio` is as good as `bound`, or better."""
        return ratio <= bound if self.goal == "at most" else ratio >= bound


@dataclass(frozen=True)
class Measured:
    """A row's pairs, and of each how many cores were busy with other processes; `failure` says why there are none."""

    row: Row
    pairs: Sequence[Pair] = ()
    others: Sequence[float | None] = field(default=())
    failure: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of the pairs' ratios."""
        return median(map(self.row.ratio, self.pairs)) if self.pairs else None

    def as_json(self) -> dict[str, Any]:
        """All there is to know."""
        row, ratio = self.row, self.ratio
        return {
            "name": row.name,
            "what": row.what,
            "ratio": ratio,
            "ratios": [row.ratio(pair) for pair in self.pairs],
            "goal": row.goal,
            "to_reach": row.to_reach,
            "stretch": row.stretch,
            "reached": ratio is not None and row.reached(ratio, row.to_reach),
            "unit": row.unit,
            "ours": [ours for ours, _ in self.pairs],
            "baseline": [baseline for _, baseline in self.pairs],
            "other_processes_cores": list(self.others),
            "failure": self.failure,
        }


def measure(row: Row, pairs: int) -> Measured:
    """`pairs` pairs of `row`. A row that fails says why, and the others go on."""
    found: list[Pair] = []
    others: list[float | None] = []
    clock = OtherProcesses()
    try:
        for pair in row.pairs(pairs):
            found.append(pair)
            others.append(clock.cores())
    except Exception as error:  # whatever a row runs may raise
        return Measured(row, (), (), f"{type(error).__name__}: {error}")
    return Measured(row, found, others)


def interleaved(ours: Callable[[], float], baseline: Callable[[], float], pairs: int) -> Iterator[Pair]:
    """Call the two in turns, who begins too, and yield what they return."""
    for number in range(pairs):
        if number % 2:
            theirs = baseline()
            yield ours(), theirs
        else:
            mine = ours()
            yield mine, baseline()


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """`work`, returning its seconds."""

    def seconds() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return seconds


def script(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Any:
    """Run `python -m module` from the checkout's root in a process of its own; the JSON value of its last line.

    Raises RuntimeError with what it said when it fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=with_checkout(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)}: {(done.stderr or done.stdout)[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def with_checkout(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """This process's environment, in which fedmd is the one of this checkout, and `extra`."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **extra}


class OtherProcesses:
    """How many cores processes outside of this one's tree kept busy since the last look (Linux; None elsewhere)."""

    def __init__(self) -> None:
        self._before = self._look()

    def cores(self) -> float | None:
        """On average, since this was last asked or made."""
        before, self._before = self._before, self._look()
        if before is None or self._before is None:
            return None
        (was, everybody_was, mine_was), (now, everybody, mine) = before, self._before
        return max(0.0, (everybody - everybody_was - (mine - mine_was)) / max(now - was, 1e-9))

    @staticmethod
    def _look() -> tuple[float, float, float] | None:
        """The time, and CPU seconds of everybody and of this process with all that it started."""
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return None
        tick = os.sysconf("SC_CLK_TCK")
        user, nice, system, _, _, irq, softirq, *_ = map(int, fields)
        return time.perf_counter(), (user + nice + system + irq + softirq) / tick, _tree_ticks(os.getpid()) / tick


def _tree_ticks(root: int) -> int:
    """CPU ticks of `root`, of its living descendants, and of those that they have waited for."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        process = int(stat.parent.name)
        parents[process] = int(fields[1])
        ticks[process] = sum(map(int, fields[11:15]))

    def belongs(process: int) -> bool:
        while process > 1:
            if process == root:
                return True
            process = parents.get(process, 0)
        return False

    return sum(count for process, count in ticks.items() if belongs(process))


def machine() -> dict[str, Any]:
    """What decides how fast things are here."""
    import torch

    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("torch", "flwr", "ray", "numpy", "pfl")},
        "load_average": os.getloadavg(),
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.exists() else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout.strip() or None
