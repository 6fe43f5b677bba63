"""Whole federations side by side: each cell is a Ray task and inline in its process, on any machine of the cluster.

A cell computes what it would compute alone, bit for bit: it has a process, and a number of threads, of its own.
"""

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from queue import SimpleQueue
from threading import Thread
from typing import Any

import ray
from ray.exceptions import RayError

from fedmd.config import RunConfig, RuntimeConfig
from fedmd.flower.client.app import app as client_app
from fedmd.report.files import read_summary
from fedmd.runs import stopping
from fedmd.runs.cell import Cell, Watcher
from fedmd.runs.cluster import first_line, places, require_place
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.runs.ledger import Broken, Ledger, broken
from fedmd.training.device import resolve_device
from fedmd.types import Json, RoundReport, Stage

_LOOK_S = 5.0  # how often the cluster's size is looked at while nothing happens


@dataclass(frozen=True)
class Finished:
    """The last event of a cell that came to its end."""

    summary: Json


Event = Stage | RoundReport | logging.LogRecord | Finished | Broken


def computed(cell: Cell) -> Iterator[Event]:
    """Compute `cell` in this process and yield what happens, as it happens; warnings are among it."""
    events: SimpleQueue[Event] = SimpleQueue()
    handler = QueueHandler(events)  # type: ignore[arg-type]  # typeshed knows no SimpleQueue here
    handler.setLevel(logging.WARNING)
    logging.getLogger("fedmd").addHandler(handler)

    def work() -> None:
        try:
            with server_identity():
                grid = InlineGrid(client_app, cell.config.federation.simulated_nodes)
                summary = serve(
                    grid,
                    cell.config,
                    cell.folder,
                    lambda config, report: events.put(report),
                    resume=cell.resume,
                    on_stage=events.put,
                )
            events.put(Finished(summary))
        except Exception as error:  # whatever it may be: the other cells go on
            events.put(broken(cell, error))

    Thread(target=work, daemon=True).start()
    try:
        while True:
            yield (event := events.get())
            if isinstance(event, Finished | Broken):
                return
    finally:
        logging.getLogger("fedmd").removeHandler(handler)


class Running:
    """A cell's Ray task. `burn_in` names the burn-in it may be training at present, that no other need train too."""

    def __init__(self, cell: Cell, events: Any) -> None:
        self.cell = cell
        self.events = events
        self.burn_in: str | None = burn_in_of(cell.config)

    def next(self) -> Event:
        """What has happened; the cell's end where its process is gone."""
        try:
            event: Event = ray.get(next(self.events))
        except StopIteration:
            return Broken("its process ended without a word")
        except RayError as error:
            return Broken(first_line(error))
        if isinstance(event, RoundReport):
            self.burn_in = None
        if isinstance(event, Finished) and read_summary(self.cell.folder) is None:
            told = f"runtime.ray_address: {self.cell.folder} must be the same folder on all machines of the cluster"
            return Broken(told, final=True)
        return event


def side_by_side(cells: Sequence[Cell], ledger: Ledger, watcher: Watcher) -> None:
    """Run the cells as tasks of the Ray that this process is connected to, as many at once as it has room for.

    A cell starts first whose burn-in no other is training at that moment. Raises ConfigError where no machine has room
    for one.
    """
    runtime = cells[0].config.runtime
    wanted = needs(runtime)
    require_place(wanted, "runtime.threads, client_cpus, client_gpus", "a run")
    task = ray.remote(computed).options(
        num_returns="streaming", max_retries=0, num_cpus=wanted["CPU"], num_gpus=wanted.get("GPU", 0)
    )
    pending = deque(cells)
    running: dict[Any, Running] = {}
    while pending or running:
        stopping.end_if_asked()
        while pending and len(running) < room(runtime):
            training = {one.burn_in for one in running.values()}
            cell = next((one for one in pending if burn_in_of(one.config) not in training), pending[0])
            pending.remove(cell)
            events = task.remote(cell)
            running[events] = Running(cell, events)
        ready, _ = ray.wait(list(running), timeout=_LOOK_S, fetch_local=False)
        for events in ready:
            one = running[events]
            event = one.next()
            if isinstance(event, Finished | Broken):
                del running[events]
            match event:
                case Stage():
                    watcher.stage(one.cell, event)
                case RoundReport():
                    watcher.round(one.cell, event)
                case Finished(summary):
                    ledger.finished(one.cell, summary)
                case Broken():
                    if (again := ledger.failed(one.cell, event)) is not None:
                        pending.append(again)
                case logging.LogRecord():
                    event.msg = f"{one.cell.name}: {event.msg}"
                    logging.getLogger(event.name).handle(event)


def needs(runtime: RuntimeConfig) -> dict[str, float]:
    """What Ray sets aside for one cell: cores for its server or its clients, who take turns, and a GPU's share."""
    resources: dict[str, float] = {"CPU": max(runtime.threads, runtime.client_cpus)}
    if runtime.client_gpus > 0 or resolve_device(runtime.device).type == "cuda":
        resources["GPU"] = runtime.client_gpus or 1
    return resources


def room(runtime: RuntimeConfig) -> int:
    """How many cells the cluster can compute at once, at present; runtime.workers bounds it."""
    fit = max(1, places(needs(runtime)))
    return fit if runtime.workers is None else min(fit, runtime.workers)


def burn_in_of(config: RunConfig) -> str:
    """Two runs for which this is the same have the same burn-in."""
    return config.model_dump_json(
        include={
            "seed": True,
            "data": True,
            "model": True,
            "training": {"burn_in"},
            "stream": {"shift"},
            "runtime": {"device", "precision", "channels_last", "threads"},
        }
    )
