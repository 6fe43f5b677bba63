"""Many federations, one Ray: Flower's simulation engine is started once and serves cell after cell."""

import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmd.attacks.base import attack_of
from fedmd.config import ConfigError, RunConfig, RuntimeConfig
from fedmd.runs.compose import make_folder
from fedmd.types import Json

# Before Flower and Ray are imported: nothing is reported to anybody's server from a simulation.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

from flwr.app import ConfigRecordValues, Context
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedmd.data.federated import load_federated_data
from fedmd.defense.samples.detectors import check_detector
from fedmd.flower.client.app import app as client_app
from fedmd.models import model_for
from fedmd.report.monitoring.tensorboard import tensorboard_is_installed
from fedmd.runs.federation import Observer, print_round, serve
from fedmd.runs.observers import observing
from fedmd.training.device import Placement


@dataclass(frozen=True)
class Cell:
    """One run: its configuration, the folder it fills, and whether it goes on from the checkpoint there."""

    config: RunConfig
    folder: Path
    resume: bool = False


def simulate(
    cells: Sequence[Cell],
    *,
    on_round: Observer = print_round,
    on_finished: Callable[[Cell, Json], None] = lambda cell, summary: None,
) -> None:
    """Run the cells one after another on one Ray instance. An exception in a cell ends the simulation.

    Start-up of Ray is booked on the first cell. Workers see `runtime.client_cpus` threads each, so their number
    never changes a result. Raises ConfigError before anything is started when data cannot be had, or when the
    cells want different workers.
    """
    if not cells:
        return
    started = time.perf_counter()
    for cell in cells:
        _check(cell.config)
        if _backend(cell.config.runtime) != _backend(cells[0].config.runtime):
            raise ConfigError("runtime: workers, client_cpus and client_gpus must be the same in all runs of a sweep.")
        make_folder(cell.folder)
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        began: float | None = started
        for cell in cells:
            with observing(cell.config, on_round) as observe:
                summary = serve(grid, cell.config, cell.folder, observe, began, resume=cell.resume)
                on_finished(cell, summary)
            began = None

    _quiet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run_simulation(
            server_app,
            client_app,
            num_supernodes=max(cell.config.federation.node_count for cell in cells),
            backend_config=_backend(cells[0].config.runtime),
        )


def _check(config: RunConfig) -> None:
    """Ask for everything a run needs from outside, so that bad input fails before Ray starts."""
    Placement.of(config.runtime)
    cores = os.cpu_count() or 1
    if config.runtime.workers is None and config.runtime.client_cpus > cores:
        raise ConfigError(f"runtime.client_cpus: must be at most {cores}, the cores of this machine.")
    if config.runtime.tensorboard and not tensorboard_is_installed():
        raise ConfigError("runtime.tensorboard: needs the package tensorboard; pip install tensorboard.")
    data = load_federated_data(config)
    attack_of(config).check(data.images)
    check_detector(config.defense.detector, model_for(config.model, data.images, config.seed))
    data.streams.batch(0, 0)


def _backend(runtime: RuntimeConfig) -> dict[str, dict[str, ConfigRecordValues]]:
    """What Flower hands to Ray. max_restarts mends a dead worker, which Flower would put back into its pool."""
    ray: dict[str, ConfigRecordValues] = {"logging_level": "error", "log_to_driver": False}
    if runtime.workers is not None:
        ray["num_cpus"] = max(1, round(runtime.workers * runtime.client_cpus))
    return {
        "init_args": ray,
        "client_resources": {
            "num_cpus": runtime.client_cpus,
            "num_gpus": runtime.client_gpus,
            "max_restarts": -1,
        },
    }


def _quiet() -> None:
    """Flower announces every start and stop; a run has its own progress, and failures still come through."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
