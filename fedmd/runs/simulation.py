"""Simulated federations, computed in one of three ways that give the same numbers.

In this process, one after another, every message answered at once (`inline.py`); whole federations side by side, in
processes of this machine or on Ray (`cells.py`); or on Ray one after another, a round's clients spread over processes
and machines (`ray_grid.py`).
"""

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from logging import getLogger

from fedmd.attacks.base import attack_of
from fedmd.config import ConfigError, RunConfig, RuntimeConfig
from fedmd.runs import processes, stopping
from fedmd.runs.cell import Cell, Failure, Watcher
from fedmd.runs.compose import make_folder
from fedmd.runs.doubts import of_the_settings
from fedmd.types import Json, RoundReport

# Before Flower is imported: nothing is reported to anybody's server from a simulation (for Ray see `cluster.py`).
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.serverapp import Grid

from fedmd.data.federated import load_federated_data
from fedmd.flower.client.app import app as client_app
from fedmd.models import check_model
from fedmd.report.monitoring.tensorboard import tensorboard_is_installed
from fedmd.report.monitoring.trackers import missing
from fedmd.runs.cells import cores_each, side_by_side
from fedmd.runs.cluster import connected, isolate_ray
from fedmd.runs.engines import IN_WORDS, available_cores, choose, room
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.runs.ledger import Ledger, OnFinished, broken
from fedmd.runs.observers import observing
from fedmd.training.device import Placement

log = getLogger(__name__)
_SHARED = ("engine", "spread", "ray_address", "workers", "threads", "client_cpus", "client_gpus", "device")


def simulate(
    cells: Sequence[Cell],
    watcher: Watcher | None = None,
    *,
    on_finished: OnFinished = lambda cell, summary: None,
) -> list[Failure]:
    """Run the cells: one after another, or side by side. Those that failed, twice, come back; all others have finished.

    `watcher` and `on_finished` are told in this process. Start-up is booked on the first cell. A server computes with
    `runtime.threads` threads and a client with `runtime.client_cpus`, wherever they run, so nothing of it ever changes
    a result.

    Raises ConfigError before anything is started when data cannot be had, or when the cells want different workers; and
    whatever a cell raises that is the only one.
    """
    if not cells:
        processes.not_needed()
        return []
    watcher = watcher or Watcher()
    started = time.perf_counter()
    told: set[str] = set()

    def warn(doubts: Sequence[str]) -> None:
        """Once, however many cells it is true of."""
        for doubt in doubts:
            if doubt not in told:
                told.add(doubt)
                log.warning("%s", doubt)

    def finished(cell: Cell, summary: Json) -> None:
        warn(summary.get("warnings", ()))
        on_finished(cell, summary)

    ledger = Ledger(watcher, finished)
    watcher.doing(
        f"checking settings and data of {len(cells)} runs" if len(cells) > 1 else "checking settings and data"
    )
    for cell in cells:
        warn(_check(cell.config))
        if _machine(cell.config.runtime) != _machine(cells[0].config.runtime):
            raise ConfigError(f"runtime: {', '.join(_SHARED)} must be the same in all runs of a sweep.")
        make_folder(cell.folder)
    where, why = choose([cell.config for cell in cells])
    log.info("computed: %s, %s", where, why)
    watcher.doing(f"computed {IN_WORDS[where]}: {why}")
    runtime = cells[0].config.runtime
    if where != "cells in processes":
        processes.not_needed()
    if where in ("clients on Ray", "cells on Ray"):
        isolate_ray(runtime)
    if where == "here":
        with server_identity():
            _one_by_one(cells, ledger, watcher, lambda c: InlineGrid(client_app, c.federation.simulated_nodes), started)
    elif where == "cells in processes":
        with processes.in_processes(room(runtime)) as places, stopping.rounds():
            side_by_side(cells, places, ledger, watcher)
    elif where == "cells on Ray":
        from fedmd.runs.ray_cells import OnRay  # Ray is slow to import

        with connected(runtime, cores_each(runtime)), stopping.rounds():
            side_by_side(cells, OnRay(runtime), ledger, watcher)
    else:
        _on_ray(cells, ledger, watcher, started)
    return ledger.failures


def _one_by_one(
    cells: Sequence[Cell], ledger: Ledger, watcher: Watcher, grid: Callable[[RunConfig], Grid], started: float
) -> None:
    """The cells in turn, their servers in this process."""
    began: float | None = started
    pending = deque(cells)
    while pending:
        cell = pending.popleft()
        try:
            with observing(cell.config, partial(_tell_round, watcher, cell)) as observe:
                told = partial(watcher.stage, cell)
                run_on = grid(cell.config)
                summary = serve(run_on, cell.config, cell.folder, observe, began, resume=cell.resume, on_stage=told)
        except Exception as error:  # whatever it may be: the other cells go on
            if len(cells) == 1:
                raise
            if (again := ledger.failed(cell, broken(cell, error))) is not None:
                pending.append(again)
        else:
            ledger.finished(cell, summary)
        began = None


def _tell_round(watcher: Watcher, cell: Cell, config: RunConfig, report: RoundReport) -> None:
    watcher.round(cell, report)


def _on_ray(cells: Sequence[Cell], ledger: Ledger, watcher: Watcher, started: float) -> None:
    """The cells in turn, on the same workers: one grid serves them all."""
    runtime, federations = cells[0].config.runtime, [cell.config.federation for cell in cells]
    with connected(runtime, runtime.client_cpus):
        from fedmd.runs.ray_grid import ray_grid  # Ray is slow to import

        nodes = max(federation.simulated_nodes for federation in federations)
        asked = max(min(federation.simulated_nodes, federation.sampled_clients) for federation in federations)
        timeout_s = min(federation.round_timeout_s for federation in federations)
        with ray_grid(client_app, runtime, nodes, asked, timeout_s) as grid, server_identity():
            _one_by_one(cells, ledger, watcher, lambda config: grid, started)


def _check(config: RunConfig) -> list[str]:
    """Ask for everything a run needs from outside, so that bad input fails before Ray starts. What is doubtful."""
    Placement.of(config.runtime)
    cores = available_cores()
    if config.runtime.workers is None and config.runtime.ray_address is None and config.runtime.client_cpus > cores:
        raise ConfigError(f"runtime.client_cpus: must be at most {cores}, the cores of this machine.")
    if config.runtime.tensorboard and not tensorboard_is_installed():
        raise ConfigError("runtime.tensorboard: needs the package tensorboard; pip install tensorboard.")
    if (library := missing(config.tracking)) is not None:
        raise ConfigError(f"tracking: needs the package {library}; pip install {library}.")
    data = load_federated_data(config)
    attack, model = attack_of(config), check_model(config.model, data.images, config.seed)
    attack.check(data.images)
    attack.check_model(model)
    config.defense.make_slot("detector").check_model(model)
    data.streams.batch(0, 0)
    return of_the_settings(data)


def _machine(runtime: RuntimeConfig) -> dict[str, object]:
    """What of the machine all cells share."""
    return runtime.model_dump(include=set(_SHARED))
