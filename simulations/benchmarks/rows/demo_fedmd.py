"""The demo's rounds by fedmd; a round's seconds, on the last line. What it prints before, `demo_bare` prints, too."""

import sys
import tempfile
from pathlib import Path

from fedmd.config import RunConfig
from fedmd.runs.cell import Cell
from fedmd.runs.compose import compose
from fedmd.runs.simulation import simulate
from fedmd.types import RoundReport
from simulations.benchmarks.rows.fedavg_fedmd import Clock


def config() -> RunConfig:
    """One seed of the demo's arm with DSC by the discrepancy, in one thread of one process."""
    return compose(
        ["experiment=demo", "defense=dsc", "runtime.engine=inline", "runtime.device=cpu", "runtime.threads=1",
         "runtime.client_cpus=1"]
    ).config  # fmt: skip


class Told(Clock):
    """With what was tested."""

    def round(self, cell: Cell, report: RoundReport) -> None:
        super().round(cell, report)
        if report.accuracy is not None:
            print(f"round {report.round}: {report.accuracy:.3f}", file=sys.stderr)


def main() -> None:
    clock, run = Told(), config()
    with tempfile.TemporaryDirectory() as folder:
        simulate([Cell(run, Path(folder, "run"))], clock)
    print((clock.times[-1] - clock.times[0]) / (len(clock.times) - 1))


if __name__ == "__main__":
    main()
