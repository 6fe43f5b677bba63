"""One federation from start to summary, on whatever grid Flower provides: simulated nodes or real ones."""

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

import torch
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from fedmd.attacks.coalition import Coalition
from fedmd.attacks.update_coalition import UpdateCoalition
from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.flower.exchange import Exchange, InMessage, shared_memory
from fedmd.flower.stream_rounds import StreamRounds
from fedmd.flower.update_rounds import UpdateRounds
from fedmd.flower.world import World, build_world
from fedmd.report.detector import detector_setting
from fedmd.report.figures import write_figures
from fedmd.report.progress import round_line
from fedmd.report.recorder import RunRecorder
from fedmd.report.summary import summarise, write_summary
from fedmd.report.tensorboard import EventWriter
from fedmd.report.truth import Truth
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Numerics
from fedmd.types import Json, RoundReport, Strip

Observer = Callable[[RunConfig, RoundReport], None]


class Rounds(Protocol):
    """What the two modes differ in, made from (grid, world, burn-in, numerics, exchange, the colluders' folder).

    `run` tells every round's report to its first argument as the round ends, and may leave records of its mode in the
    run's folder; `strip` is known after that. `rivals` are the detectors whose scores the verdicts will have besides.
    """

    @property
    def coalition(self) -> Coalition | UpdateCoalition: ...

    @property
    def burn_in_accuracy(self) -> float: ...

    @property
    def burn_in_attack_success(self) -> float | None: ...

    @property
    def rivals(self) -> list[str]: ...

    @property
    def strip(self) -> Strip | None: ...

    def run(self, on_report: Callable[[RoundReport], None], folder: Path) -> None: ...


_ROUNDS: dict[str, Callable[[Grid, World, BurnIn, Numerics, Exchange, Path], Rounds]] = {
    "stream": StreamRounds,
    "update": UpdateRounds,
}


def serve(grid: Grid, config: RunConfig, folder: Path, on_round: Observer, started: float | None = None) -> Json:
    """Run the federation of `config`, leave everything there is to know in `folder`, return its summary.

    `started` is the `time.perf_counter()` from which start-up is counted, if that was before this call. Raises
    ConfigError for data or a model that cannot be had, RuntimeError when the nodes do not come.
    """
    began = time.perf_counter() if started is None else started
    torch.set_num_threads(config.runtime.threads)
    world = build_world(config)
    numerics = Numerics.of(config.runtime)
    trained = burn_in(
        config, world.images, world.parts, numerics=numerics, cache_dir=default_cache_dir(config.runtime.cache_dir)
    )
    with ExitStack() as stack:
        shared = stack.enter_context(shared_memory())
        exchange = shared if isinstance(grid, InMemoryGrid) else InMessage()
        rounds = _ROUNDS[config.mode](grid, world, trained, numerics, exchange, Path(shared.folder))
        coalition = rounds.coalition  # as an observer: it knows when the colluders act
        startup_s = time.perf_counter() - began
        poisoned_rounds: list[int] = []
        recorder = stack.enter_context(RunRecorder(folder, rounds.rivals))
        events = stack.enter_context(EventWriter(folder)) if config.runtime.tensorboard else None

        def finish(report: RoundReport) -> None:
            if coalition.is_active(report.round):
                poisoned_rounds.append(report.round)
            report.wall_s["attack"] = coalition.blackboard.seconds(report.round)
            recorder.record(report)
            if events is not None:
                events.record(report)
            on_round(config, report)

        rounds.run(finish, folder)
    truth = Truth(coalition.members, tuple(poisoned_rounds), coalition.poisoned_samples)
    truth.write(folder)
    settings = json.loads(config.to_json())
    write_figures(folder, rounds.strip, detector_setting(settings), config.defense.stopping)
    summary = summarise(
        folder,
        truth=truth,
        burn_in_accuracy=rounds.burn_in_accuracy,
        burn_in_attack_success=rounds.burn_in_attack_success,
        defense_name=config.defense.name,
        n_clients=config.federation.clients,
        wall_s={"startup": startup_s, "total": time.perf_counter() - began},
        seed=config.seed,
        config=settings,
        versions=versions(),
    )
    write_summary(folder, summary)
    return summary


def print_round(config: RunConfig, report: RoundReport) -> None:
    """The default observer: one line a round, unless runtime.progress=false."""
    if config.runtime.progress:
        print(round_line(report, config.stream.rounds), flush=True)


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    packages = ("fedmd", "flwr", "torch", "torchvision", "ray", "numpy")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # fedmd itself, where it runs from a Flower bundle
        return "not installed"
