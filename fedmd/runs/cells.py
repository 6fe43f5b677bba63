"""Whole federations side by side: each cell is computed inline in a process of its own, here or on another machine.

A cell computes what it would compute alone, bit for bit: it has a process, and a number of threads, of its own. Where
those processes are is for `processes.py` (this machine) and `ray_cells.py` (a cluster).
"""

import logging
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass
from logging.handlers import QueueHandler
from queue import SimpleQueue
from threading import Thread
from typing import Protocol

from fedmd.config import RunConfig, RuntimeConfig
from fedmd.flower.client.app import app as client_app
from fedmd.runs import stopping
from fedmd.runs.cell import Cell, Watcher
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.runs.ledger import Broken, Ledger, broken
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


class Places(Protocol):
    """Where cells are computed."""

    def room(self) -> int:
        """How many cells there is room for at once, at present."""

    def start(self, cell: Cell) -> Hashable:
        """Have a process compute the cell; what comes back stands for it."""

    def wait(self, started: Collection[Hashable], seconds: float) -> list[tuple[Hashable, Event]]:
        """What has happened to those started, an event each; the first is waited for, so many seconds at most.

        Of a process that is gone, the event is Broken.
        """


@dataclass
class _Running:
    """A cell that is being computed. `burn_in` is the one it may be training at present, that no other need train."""

    cell: Cell
    burn_in: str | None


def side_by_side(cells: Sequence[Cell], places: Places, ledger: Ledger, watcher: Watcher) -> None:
    """Compute the cells, as many at once as there is room for.

    A cell starts first whose burn-in no other is training at that moment.
    """
    pending = deque(cells)
    running: dict[Hashable, _Running] = {}
    while pending or running:
        stopping.end_if_asked()
        while pending and len(running) < places.room():
            training = {one.burn_in for one in running.values()}
            cell = next((one for one in pending if burn_in_of(one.config) not in training), pending[0])
            pending.remove(cell)
            running[places.start(cell)] = _Running(cell, burn_in_of(cell.config))
        for started, event in places.wait(running, _LOOK_S):
            one = running[started]
            if isinstance(event, Finished | Broken):
                del running[started]
            match event:
                case Stage():
                    watcher.stage(one.cell, event)
                case RoundReport():
                    one.burn_in = None
                    watcher.round(one.cell, event)
                case Finished(summary):
                    ledger.finished(one.cell, summary)
                case Broken():
                    if (again := ledger.failed(one.cell, event)) is not None:
                        pending.append(again)
                case logging.LogRecord():
                    event.msg = f"{one.cell.name}: {event.msg}"
                    logging.getLogger(event.name).handle(event)


def cores_each(runtime: RuntimeConfig) -> float:
    """The cores of one cell: its server's or its clients', who take turns."""
    return max(runtime.threads, runtime.client_cpus)


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
