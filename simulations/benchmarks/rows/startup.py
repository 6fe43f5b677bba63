"""How long the smallest federation takes as a command, over importing what it cannot do without."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from simulations.benchmarks.harness import ROOT, Pair, Row, interleaved, timed, with_checkout


def _run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, env=with_checkout(), check=True, capture_output=True)


def _pairs(count: int) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "run")

        def smoke() -> None:
            _run(str(Path(sys.executable).with_name("fedmd")), "run", "experiment=smoke", f"hydra.run.dir={place}")

        smoke()  # bytecode, and the cache of burn-in, as of any second run
        shutil.rmtree(place)
        yield from interleaved(timed(smoke), timed(lambda: _run(sys.executable, "-c", "import torch, flwr.app")), count)


ROWS = (
    Row(
        "startup",
        "whole command `fedmd run experiment=smoke` over `python -c 'import torch, flwr.app'`",
        "at most",
        to_reach=2.0,
        stretch=1.5,
        pairs=_pairs,
    ),
)
