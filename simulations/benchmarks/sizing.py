"""What a client costs that is not asked: python -m simulations.benchmarks.sizing FILE.csv

The same six rounds of ten clients, attacked and defended in all phases, among 100, 10,000 and 1,000,000; a row as it is
measured. The first of them also trains the model, 2 epochs of 150 images.
"""

import csv
import sys
import tempfile
from pathlib import Path

from simulations.benchmarks.harness import script

SIZES = (100, 10_000, 1_000_000)
FEDERATION = (
    "data=digits", "model=cnn", "model.width=4", "data.splits.burn_in=150", "data.splits.trusted=40",
    "data.splits.attacker=40", "data.splits.test=200", "training.burn_in.epochs=2", "runtime.engine=inline",
    "stream.clean_rounds=2", "stream.accumulative_rounds=2", "stream.trigger_rounds=1", "stream.recovery_rounds=1",
    "attack.fraction=0.2", "federation.clients_per_round=10",
)  # fmt: skip


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as cache, path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["clients", "seconds_six_rounds", "cpu_seconds_whole_run", "peak_mib", "folder_kib"])
        for clients in SIZES:
            overrides = (f"federation.clients={clients}", f"runtime.cache_dir={cache}")
            found = script("simulations.benchmarks.federation", *FEDERATION, *overrides)
            measured = (found["seconds"], found["cpu"], found["bytes"] / 2**20, found["folder"] / 2**10)
            rows.writerow([clients, *(f"{value:.2f}" for value in measured)])
            file.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
