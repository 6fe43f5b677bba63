"""How much faster several runs are side by side than one after another; start-up and reports included."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from simulations.benchmarks.harness import ROOT, Pair, Row, interleaved, timed, with_checkout

# Some 9 s each on one core, burn-in included: long enough for start-up and report to be a small part of eight of them.
CELLS = [
    "seed=0,1,2,3,4,5,6,7",
    "attack.fraction=0.3",
    "model.width=8",
    "data.splits.burn_in=1000",
    "data.splits.test=1000",
    "training.burn_in.epochs=3",
    "stream.clean_rounds=12",
    "stream.accumulative_rounds=8",
    "runtime.evaluate_every=2",
]


def _sweep(*engine: str) -> None:
    """The cells, with a cache of their own: nothing has been computed before."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"hydra.sweep.dir={folder}/runs", f"runtime.cache_dir={folder}/cache"]
        command = [Path(sys.executable).with_name("fedmd"), "run", "-m", "--quiet", *CELLS, *own, *engine]
        subprocess.run(command, cwd=ROOT, env=with_checkout(), check=True, capture_output=True)
        assert len(list(Path(folder, "runs").rglob("summary.json"))) == 8


def _pairs(count: int) -> Iterator[Pair]:
    side_by_side = timed(lambda: _sweep("runtime.workers=2"))
    yield from interleaved(side_by_side, timed(lambda: _sweep("runtime.engine=inline")), count)


ROWS = (
    Row(
        "study_speedup",
        "whole command `fedmd run -m` of 8 cells of some 9 s, two at once, over the same one after another",
        "at least",
        to_reach=1.8,
        stretch=1.95,
        pairs=_pairs,
    ),
)
