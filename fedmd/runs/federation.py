"""One federation from start to summary, on whatever grid Flower provides: simulated nodes or real ones."""

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Protocol

from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from fedmd.attacks.backdoor import require_fit
from fedmd.attacks.coalition import Coalition
from fedmd.attacks.update_coalition import UpdateCoalition
from fedmd.config import ConfigError, RunConfig
from fedmd.data.federated import FederatedData
from fedmd.flower.server.stream_rounds import StreamRounds
from fedmd.flower.server.update_rounds import UpdateRounds
from fedmd.flower.wire.model_exchange import Exchange, InMessage, shared_memory
from fedmd.report.detector import detector_setting
from fedmd.report.figures.run import write_figures
from fedmd.report.monitoring.progress import round_line
from fedmd.report.monitoring.tensorboard import EventWriter
from fedmd.report.recorder import Recorded, RunRecorder
from fedmd.report.summary import summarise, write_summary
from fedmd.report.truth import Truth
from fedmd.report.verdict_parts import discard_parts
from fedmd.rounds.checkpoint import Checkpoints, Start, discard_checkpoint, note_config, sole_server
from fedmd.storage import Saved
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Placement
from fedmd.training.setup import set_up
from fedmd.types import Json, RoundReport, Strip

Observer = Callable[[RunConfig, RoundReport], None]


class Rounds(Protocol):
    """What the two modes differ in, made from (grid, data, burn-in, placement, exchange, the colluders' folder).

    `run` says when it is ready for its first round, tells every round's report to its first argument as the round ends,
    and may leave records of its mode in the run's folder; `strip` is known after that. While either is told, `state` is
    what another one, made in the same way, needs as `start.saved` to go on with the next round. `rivals` are the
    detectors whose scores the verdicts will have besides.
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

    def run(
        self, on_report: Callable[[RoundReport], None], folder: Path, start: Start, on_start: Callable[[], None]
    ) -> None: ...

    def state(self) -> Saved: ...


_ROUNDS: dict[str, Callable[[Grid, FederatedData, BurnIn, Placement, Exchange, Path], Rounds]] = {
    "stream": StreamRounds,
    "update": UpdateRounds,
}


_FRESH: Saved = {"session": "", "rounds": None, "poisoned_rounds": [], "recorded": [0, 0], "seconds": 0.0}


def serve(
    grid: Grid,
    config: RunConfig,
    folder: Path,
    on_round: Observer,
    started: float | None = None,
    *,
    resume: bool = False,
) -> Json:
    """Run the federation of `config`, leave everything there is to know in `folder`, return its summary.

    `started` is the `time.perf_counter()` from which start-up is counted, if that was before this call. With `resume`
    the run in `folder` goes on from its checkpoint; where there is none, it had not begun and does so now.

    Raises ConfigError for data or a model that cannot be had, for a folder that another process is working in, and
    for a checkpoint that does not fit; RuntimeError when the nodes do not come.
    """
    with sole_server(folder):
        if not resume:
            discard_checkpoint(folder)
        note_config(folder, config)
        summary = _serve(grid, config, folder, on_round, time.perf_counter() if started is None else started)
        discard_checkpoint(folder)
        discard_parts(folder)
    return summary


def _serve(grid: Grid, config: RunConfig, folder: Path, on_round: Observer, began: float) -> Json:
    setup = set_up(config)
    require_fit(config.attack, setup.data.images)
    checkpoints = Checkpoints(folder, config, setup.trained)
    done, saved = checkpoints.load() or (0, _FRESH)
    start = Start(saved["session"], done, saved["rounds"]) if saved["session"] else Start()
    with ExitStack() as stack:
        shared = stack.enter_context(shared_memory())
        exchange = shared if isinstance(grid, InMemoryGrid) else InMessage()
        rounds = _ROUNDS[config.mode](grid, setup.data, setup.trained, setup.placement, exchange, Path(shared.folder))
        coalition = rounds.coalition  # as an observer: it knows when the colluders act
        startup_s = time.perf_counter() - began
        poisoned_rounds: list[int] = list(saved["poisoned_rounds"])
        try:
            recorder = stack.enter_context(RunRecorder(folder, rounds.rivals, after=Recorded(*saved["recorded"])))
        except ValueError as error:
            raise ConfigError(f"resume: {error}.") from error
        events = stack.enter_context(EventWriter(folder)) if config.runtime.tensorboard else None

        def finish(report: RoundReport) -> None:
            if coalition.is_active(report.round):
                poisoned_rounds.append(report.round)
            report.wall_s["attack"] = coalition.blackboard.seconds(report.round)
            recorder.record(report)
            if events is not None:
                events.record(report)
            on_round(config, report)
            keep(report.round + 1)

        def keep(done: int) -> None:
            if checkpoints.is_due(done):
                recorded = recorder.settle()
                now: Saved = {
                    "session": start.session,
                    "rounds": rounds.state(),
                    "poisoned_rounds": poisoned_rounds,
                    "recorded": [recorded.bytes, recorded.parts],
                    "seconds": saved["seconds"] + time.perf_counter() - began,
                }
                checkpoints.save(done, now)

        rounds.run(finish, folder, start, lambda: keep(start.round))
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
        wall_s={"startup": startup_s, "total": saved["seconds"] + time.perf_counter() - began},
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
