"""Cells as Ray tasks, on any machine of a cluster, or where Ray shares out GPUs."""

from collections.abc import Collection, Hashable
from typing import Any

import ray
from ray.exceptions import RayError

from fedmd.config import RuntimeConfig
from fedmd.report.files import read_summary
from fedmd.runs.cell import Cell
from fedmd.runs.cells import Event, Finished, computed, cores_each
from fedmd.runs.cluster import first_line, places, require_place
from fedmd.runs.ledger import Broken
from fedmd.training.device import resolve_device


class OnRay:
    """See `Places`: the Ray that this process is connected to. runtime.workers bounds how many there are at once.

    Raises ConfigError where no machine has room for one.
    """

    def __init__(self, runtime: RuntimeConfig) -> None:
        self._needs = needs(runtime)
        self._most = runtime.workers
        require_place(self._needs, "runtime.threads, client_cpus, client_gpus", "a run")
        resources = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs.get("GPU", 0)}
        self._task = ray.remote(computed).options(num_returns="streaming", max_retries=0, **resources)
        self._cells: dict[Any, Cell] = {}

    def room(self) -> int:
        """Machines come and go."""
        fit = max(1, places(self._needs))
        return fit if self._most is None else min(fit, self._most)

    def start(self, cell: Cell) -> Hashable:
        """A task; Ray knows where."""
        events: Hashable = self._task.remote(cell)
        self._cells[events] = cell
        return events

    def wait(self, started: Collection[Hashable], seconds: float) -> list[tuple[Hashable, Event]]:
        """See `Places`."""
        ready, _ = ray.wait(list(started), timeout=seconds, fetch_local=False)
        return [(events, self._next(events)) for events in ready]

    def _next(self, events: Any) -> Event:
        try:
            event: Event = ray.get(next(events))
        except StopIteration:
            return Broken("its process ended without a word")
        except RayError as error:
            return Broken(first_line(error))
        if isinstance(event, Finished) and read_summary(folder := self._cells[events].folder) is None:
            told = f"runtime.ray_address: {folder} must be the same folder on all machines of the cluster"
            return Broken(told, final=True)
        return event


def needs(runtime: RuntimeConfig) -> dict[str, float]:
    """What Ray sets aside for one cell: cores and a GPU's share."""
    resources: dict[str, float] = {"CPU": cores_each(runtime)}
    if runtime.client_gpus > 0 or resolve_device(runtime.device).type == "cuda":
        resources["GPU"] = runtime.client_gpus or 1
    return resources
