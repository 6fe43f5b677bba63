"""One federation from start to summary, on whatever grid Flower provides: simulated nodes or real ones."""

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from fedmd.attacks.coalition import Coalition
from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.flower.attack_mod import coalition_of
from fedmd.flower.exchange import InMessage, shared_memory
from fedmd.flower.messages import Expected
from fedmd.flower.streaming import FlowerCollector
from fedmd.flower.world import World, build_world
from fedmd.report.figures import write_figures
from fedmd.report.progress import round_line
from fedmd.report.recorder import RunRecorder
from fedmd.report.summary import summarise, write_summary
from fedmd.report.tensorboard import EventWriter
from fedmd.report.truth import Truth
from fedmd.server.learner import OnlineLearner
from fedmd.server.session import RoundResult, run_session
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Numerics
from fedmd.types import Action, ImageSet, Json, RoundReport, Strip

Observer = Callable[[RunConfig, RoundReport], None]
_STRIP_IMAGES = 8


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
    learner = OnlineLearner(config, world.images, world.parts, trained, numerics)
    burn_in_accuracy = learner.accuracy()
    with ExitStack() as stack:
        shared = stack.enter_context(shared_memory())
        exchange = shared if isinstance(grid, InMemoryGrid) else InMessage()
        coalition = coalition_of(world, Path(shared.folder))  # as an observer: it knows when the colluders act
        collect = FlowerCollector(grid, config, exchange, _expected(config, world.images))
        collect.connect()
        startup_s = time.perf_counter() - began
        strip: Strip | None = None
        poisoned_rounds: list[int] = []
        recorder = stack.enter_context(RunRecorder(folder, list(learner.pipeline.rivals)))
        events = stack.enter_context(EventWriter(folder)) if config.runtime.tensorboard else None
        for result in run_session(config, learner, collect, coalition.phase):
            round = result.report.round
            if coalition.is_active(round):
                poisoned_rounds.append(round)
                strip = _strip(world, coalition, result) or strip
            result.report.wall_s["attack"] = coalition.blackboard.seconds(round)
            recorder.record(result.report)
            if events is not None:
                events.record(result.report)
            on_round(config, result.report)
    truth = Truth(coalition.members, tuple(poisoned_rounds))
    truth.write(folder)
    write_figures(folder, strip, config.defense.detector, config.defense.stopping)
    summary = summarise(
        folder,
        truth=truth,
        burn_in_accuracy=burn_in_accuracy,
        defense_name=config.defense.name,
        n_clients=config.federation.clients,
        wall_s={"startup": startup_s, "total": time.perf_counter() - began},
        seed=config.seed,
        config=json.loads(config.to_json()),
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


def _expected(config: RunConfig, images: ImageSet) -> Expected:
    channels, height, width = images.images.shape[1:]
    return Expected((channels, height, width), images.classes, config.stream.batch_size)


def _strip(world: World, coalition: Coalition, result: RoundResult) -> Strip | None:
    """A few of a member's samples as it held them, as it sent them and as the server learned from them.

    Only for accumulative rounds, whose honest originals are the member's own stream. A rejected sample is black.
    """
    batch = next((batch for batch in result.batches if batch.client in coalition.members), None)
    if batch is None or result.learned is None or result.report.phase != "accumulative":
        return None
    clean = world.streams.batch(batch.client, batch.round).images
    screened, kept = result.learned.screened, result.learned.screened.verdicts.actions != Action.REJECTED
    learned = np.zeros((len(kept), *batch.images.shape[1:]), np.uint8)
    learned[kept] = np.rint(screened.x.float().cpu().numpy() * 255).astype(np.uint8)
    mine = np.flatnonzero(result.learned.clients == batch.client)[:_STRIP_IMAGES]
    return Strip(clean[:_STRIP_IMAGES], batch.images[:_STRIP_IMAGES], learned[mine])
