"""A second process that knows a simulation's Ray by address and port alone: it gets in nowhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.runs.cell import Cell, Watcher
from fedmd.runs.compose import compose
from fedmd.runs.simulation import simulate
from fedmd.types import RoundReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
STRANGER = """
import ray, sys
ray.init(address=sys.argv[1], logging_level="error")
print(ray.get(ray.remote(lambda: "ran here").remote()))
"""


def test_a_stranger_cannot_join(small: list[str], cache: Path, tmp_path: Path) -> None:
    asked: list[subprocess.CompletedProcess[str]] = []
    listening: list[str] = []

    class Asking(Watcher):
        def round(self, cell: Cell, report: RoundReport) -> None:
            import ray

            if asked:
                return
            address = ray.get_runtime_context().gcs_address
            environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
            command = [sys.executable, "-c", STRANGER, address]
            asked.append(subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100))
            listening.extend(listeners())

    settings = [*small, f"runtime.cache_dir={cache}", "runtime.engine=ray", f"hydra.run.dir={tmp_path}"]
    simulate([Cell(compose(settings).config, tmp_path)], Asking())
    (stranger,) = asked
    assert stranger.returncode != 0 and "ran here" not in stranger.stdout
    assert "token" in stranger.stderr.lower()
    assert listening and all(address.startswith(("127.", "::ffff:127.", "::1")) for address in listening)


def listeners() -> list[str]:
    """The addresses at which processes called after Ray listen (ss prints them for root and for one's own)."""
    rows = subprocess.run(["ss", "-H", "-ltnp"], capture_output=True, text=True).stdout.splitlines()
    return [row.split()[3].rpartition(":")[0].strip("[]") for row in rows if "raylet" in row or "gcs_server" in row]
