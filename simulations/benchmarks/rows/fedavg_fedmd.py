"""The FedAvg workload by fedmd: python -m simulations.benchmarks.rows.fedavg_fedmd ENGINE; a round's seconds, last."""

import sys
import tempfile
import time
from pathlib import Path

from fedmd.config import RunConfig
from fedmd.runs.cell import Cell, Watcher
from fedmd.runs.compose import compose
from fedmd.runs.simulation import simulate
from fedmd.types import RoundReport
from simulations.benchmarks.rows.fedavg_bare import (
    BATCH,
    CLIENTS,
    EVALUATE_EVERY,
    PLACE,
    RATE,
    ROUNDS,
    SAMPLED,
    SAMPLES,
    TEST,
)

ENGINES = {
    "inline": ["runtime.engine=inline", "runtime.client_cpus=2"],
    "ray": ["runtime.engine=ray", "runtime.workers=2", "runtime.client_cpus=1", "runtime.spread=clients"],
}


def config_for(engine: str) -> RunConfig:
    return compose(
        [
            "mode=update", "data=fashion_mnist", f"data.path={PLACE}", f"data.splits.test={TEST}",
            "data.splits.burn_in=1000", "training.burn_in.epochs=1",
            "model=cnn", "model.width=32", "attack=none", "defense=none",
            f"federation.clients={CLIENTS}", f"federation.clients_per_round={SAMPLED}",
            f"local.samples={SAMPLES}", f"local.batch_size={BATCH}", f"local.lr={RATE}", "local.momentum=0",
            "local.epochs=1", f"stream.clean_rounds={ROUNDS}", "stream.accumulative_rounds=0",
            "stream.trigger_rounds=0", "stream.recovery_rounds=0", "runtime.device=cpu", "runtime.threads=2",
            f"runtime.evaluate_every={EVALUATE_EVERY}", f"runtime.checkpoint_every={EVALUATE_EVERY}",
            *ENGINES[engine],
        ]
    ).config  # fmt: skip


class Clock(Watcher):
    """When each round ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def round(self, cell: Cell, report: RoundReport) -> None:
        self.times.append(time.perf_counter())


def main() -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        simulate([Cell(config_for(sys.argv[1]), Path(folder, "run"))], clock)
    print((clock.times[-1] - clock.times[0]) / (ROUNDS - 1))


if __name__ == "__main__":
    main()
