"""Simulated federations, cell after cell, on one of two engines that give the same numbers.

*inline* answers every message in this process (`inline.py`); *ray* starts Flower's simulation engine once for all cells
and spreads a round's clients over processes, GPUs and machines.
"""

import os
import secrets
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Literal

from fedmd.attacks.base import attack_of
from fedmd.config import ConfigError, RunConfig, RuntimeConfig
from fedmd.runs.compose import make_folder
from fedmd.types import Json

# Before Flower and Ray are imported. Nothing is reported to anybody's server from a simulation. And nobody else joins
# it: Ray listens on all interfaces and runs whatever it is sent, unless it is told to stay on loopback (that is what
# RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 does, on any system) and to ask for a token.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
os.environ.setdefault("RAY_AUTH_MODE", "token")
if "RAY_AUTH_TOKEN_PATH" not in os.environ:
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

from flwr.app import ConfigRecordValues, Context
from flwr.serverapp import Grid, ServerApp

from fedmd.data.federated import load_federated_data
from fedmd.flower.client.app import app as client_app
from fedmd.models import model_for
from fedmd.report.monitoring.tensorboard import tensorboard_is_installed
from fedmd.runs.federation import Observer, print_round, quiet_flower, serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.runs.observers import observing
from fedmd.training.device import Placement


@dataclass(frozen=True)
class Cell:
    """One run: its configuration, the folder it fills, and whether it goes on from the checkpoint there."""

    config: RunConfig
    folder: Path
    resume: bool = False


log = getLogger(__name__)
_WORTH_SHIPPING = 200_000  # samples that clients train on or craft; fewer are done before Ray has started


def simulate(
    cells: Sequence[Cell],
    *,
    on_round: Observer = print_round,
    on_finished: Callable[[Cell, Json], None] = lambda cell, summary: None,
) -> None:
    """Run the cells one after another. An exception in a cell ends the simulation.

    Start-up is booked on the first cell. Workers see `runtime.client_cpus` threads each, so neither their number nor
    the engine ever changes a result. Raises ConfigError before anything is started when data cannot be had, or when
    the cells want different workers.
    """
    if not cells:
        return
    started = time.perf_counter()
    for cell in cells:
        _check(cell.config)
        if _backend(cell.config.runtime) != _backend(cells[0].config.runtime):
            raise ConfigError("runtime: workers, client_cpus and client_gpus must be the same in all runs of a sweep.")
        make_folder(cell.folder)

    def serve_on(grid: Callable[[RunConfig], Grid]) -> None:
        began: float | None = started
        for cell in cells:
            with observing(cell.config, on_round) as observe:
                summary = serve(grid(cell.config), cell.config, cell.folder, observe, began, resume=cell.resume)
                on_finished(cell, summary)
            began = None

    engine, why = choose_engine([cell.config for cell in cells])
    log.info("engine: %s, %s", engine, why)
    if engine == "inline":
        with server_identity():
            serve_on(lambda config: InlineGrid(client_app, config.federation.simulated_nodes))
    else:
        _on_ray(cells, serve_on)


def choose_engine(configs: Sequence[RunConfig]) -> tuple[Literal["inline", "ray"], str]:
    """The engine for these runs, and why it is that one."""
    runtime = configs[0].runtime
    if runtime.engine != "auto":
        return runtime.engine, "as runtime.engine says"
    if runtime.workers is not None or runtime.client_gpus > 0:
        return "ray", "as runtime.workers or runtime.client_gpus asks for it"
    if (os.cpu_count() or 1) < 2:
        return "inline", "this machine has one core"
    if (work := sum(map(_client_work, configs))) > _WORTH_SHIPPING:
        return "ray", f"the clients' {work} samples are worth spreading over processes"
    return "inline", f"the clients' {work} samples are done before Ray would have started"


def _client_work(config: RunConfig) -> int:
    """Samples that clients train on or craft in the whole run, roughly."""
    federation, stream = config.federation, config.stream
    if config.mode == "update":
        samples = config.local.samples or 500
        return stream.rounds * federation.sampled_clients * samples * config.local.epochs
    crafting = round(config.attack.fraction * federation.sampled_clients) * stream.batch_size * 50  # second order
    return stream.rounds * federation.sampled_clients * stream.batch_size + stream.accumulative_rounds * crafting


def _on_ray(cells: Sequence[Cell], serve_on: Callable[[Callable[[RunConfig], Grid]], None]) -> None:
    """`serve_on` within Flower's simulation engine, whose one grid serves every cell."""
    from flwr.simulation import run_simulation  # slow to import

    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        serve_on(lambda config: grid)

    with quiet_flower(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        run_simulation(
            server_app,
            client_app,
            num_supernodes=max(cell.config.federation.simulated_nodes for cell in cells),
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
    config.defense.make_slot("detector").check_model(model_for(config.model, data.images, config.seed))
    if data.streams.outnumber_images:
        log.warning(
            "federation.clients: %d clients outnumber the %d images of the streams and have some in common: each draws "
            "its own, with replacement",
            config.federation.clients,
            len(data.split.stream),
        )
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
