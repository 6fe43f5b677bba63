"""One federation in a process of its own: python -m simulations.benchmarks.federation [OVERRIDE ...]

The last line is JSON: the `seconds` from the first round on, start-up left out; the `cpu` seconds of everything,
imports included; the process's peak memory, `bytes`; and what the run's `folder` takes, in bytes.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from fedmd.runs.compose import compose
from fedmd.runs.simulation import Cell, simulate
from fedmd.types import Json


def main(overrides: list[str]) -> None:
    found: list[Json] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "run")
        config = compose([*overrides, "runtime.progress=false", f"hydra.run.dir={place}"]).config
        simulate([Cell(config, place)], on_finished=lambda cell, summary: found.append(summary["wall_s"]))
        written = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    (wall,) = found
    print(
        json.dumps(
            {
                "seconds": wall["total"] - wall["startup"],
                "cpu": time.process_time(),
                "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "folder": written,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
