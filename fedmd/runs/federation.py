"""One federation from start to summary, on whatever grid Flower provides: simulated nodes or real ones."""

import json
import logging
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, astuple, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import Grid

from fedmd.attacks.base import attack_of
from fedmd.attacks.coalition import coalition_of
from fedmd.audit.chain import Position
from fedmd.config import ConfigError, RunConfig
from fedmd.data.clients import ever_asked
from fedmd.defense.base import defense_of, score_labels
from fedmd.flower.server.collect import AskForSamples, AskForUpdates, Asking, Collector
from fedmd.flower.server.grids import LocalGrid, is_remote
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.server.spool import Spool
from fedmd.flower.strategies.aggregator import StrategyAggregator
from fedmd.flower.strategies.base import strategy_of
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage, shared_memory
from fedmd.report.files import METRICS, SUMMARY, Truth, read_metrics, write_example_images, write_summary
from fedmd.report.monitoring.logs import round_line
from fedmd.report.monitoring.trackers import TRACKERS, Tracker, numbers
from fedmd.report.recorder import RecordPosition, RunRecorder
from fedmd.report.scores import held_score
from fedmd.report.summary import summarise
from fedmd.report.verdicts import discard_parts
from fedmd.rounds.checkpoint import Checkpoints, discard_checkpoint, why_it_begins_again
from fedmd.rounds.folder import note_config, sole_server
from fedmd.rounds.gate import open_gate
from fedmd.rounds.loop import is_between_replies, run_rounds
from fedmd.rounds.model import ServerModel
from fedmd.rounds.protocols import Server
from fedmd.rounds.stream import StreamServer
from fedmd.rounds.update import UpdateServer
from fedmd.runs import doubts, stopping
from fedmd.runs.examples import example_images
from fedmd.storage import Saved
from fedmd.training.device import flushing_denormals
from fedmd.training.local import floating
from fedmd.training.setup import Setup, set_up
from fedmd.types import ExampleImages, Json, RoundReport, Stage

log = logging.getLogger(__name__)
Observer = Callable[[RunConfig, RoundReport], None]
Side = tuple[Server[Any], Asking[Any]]  # a mode's server, and how its clients are asked


def _stream_side(setup: Setup, folder: Path) -> Side:
    config, images = setup.data.config, setup.data.images
    return StreamServer(setup), AskForSamples(config, images)


def _update_side(setup: Setup, folder: Path) -> Side:
    data, config = setup.data, setup.data.config
    model = ServerModel(setup)
    arrays = ArrayRecord({name: tensor.cpu() for name, tensor in floating(model.net.state_dict()).items()})
    plugin, defense = strategy_of(config), defense_of(config)
    aggregator = StrategyAggregator(plugin, plugin.build(config, model), arrays)
    screen = defense.build_screen(config, model.net, model.trusted, setup.trained.snapshots)
    most = config.local.samples or len(data.split.stream)
    spool = Spool(folder, config.runtime.updates_in_memory)
    asking = AskForUpdates(config, aggregator, model.net, data.images.classes, most, spool)
    return UpdateServer(model, aggregator, screen), asking


SIDES: dict[str, Callable[[Setup, Path], Side]] = {"stream": _stream_side, "update": _update_side}


def serve(
    grid: Grid,
    config: RunConfig,
    folder: Path,
    on_round: Observer,
    started: float | None = None,
    *,
    resume: bool = False,
    on_stage: Callable[[Stage], None] = lambda stage: None,
) -> Json:
    """Run the federation of `config`, leave everything there is to know in `folder`, return its summary.

    `on_stage` is told what goes on before the first round, `on_round` of each round. `started` is the
    `time.perf_counter()` from which start-up is counted, if that was before this call. With `resume`
    the run in `folder` goes on from its checkpoint; where there is none, it begins, which is said and recorded if it
    had rounds.

    Raises ConfigError for data or a model that cannot be had, for a folder that another process is working in, and
    for a checkpoint that does not fit; RuntimeError when the nodes do not come.
    """
    stopping.end_if_asked()
    with sole_server(folder):
        if not resume:
            discard_checkpoint(folder)
        note_config(folder, config)
        began = time.perf_counter() if started is None else started
        summary = _serve(grid, config, folder, on_round, on_stage, began, resume)
        discard_checkpoint(folder)
        discard_parts(folder)
    return summary


def _serve(
    grid: Grid,
    config: RunConfig,
    folder: Path,
    on_round: Observer,
    on_stage: Callable[[Stage], None],
    began: float,
    resume: bool,
) -> Json:
    setup = set_up(config, on_stage)
    attack_of(config).check(setup.data.images)
    checkpoints = Checkpoints(folder, config, setup.trained)
    done, saved = checkpoints.load() or (0, None)
    restart = why_it_begins_again(folder) if resume and saved is None else None
    if restart is not None:
        told = f"{folder}: {restart}, so the run begins again with round 0; its earlier rounds are void"
        log.warning(told)
        print(told, flush=True)
    with ExitStack() as stack:
        stack.enter_context(quiet_flower())
        stack.enter_context(flushing_denormals())
        shared = stack.enter_context(shared_memory())
        exchange = _exchange(grid, shared)
        server, asking = SIDES[config.mode](setup, folder)
        burn_in = {"accuracy": server.model.accuracy(), "attack_success": server.model.attack_success()}
        nodes = Nodes(grid, config, exchange.folder)
        on_stage(Stage("nodes"))
        nodes.connect()
        coalition = coalition_of(setup.data, shared)  # as an observer: it knows when the colluders act
        startup_s = time.perf_counter() - began
        progress = Progress.of(saved)
        try:
            recorder = stack.enter_context(RunRecorder(folder, server.baselines, after=progress.recorded))
        except ValueError as error:
            raise ConfigError(f"resume: {error}.") from error
        trackers = trackers_of(config, folder)
        if saved is not None:
            server.restore(saved["server"])
            coalition.cache.restore(saved["cache"])
        gate = stack.enter_context(open_gate(config, folder, server, saved and saved["gate"], done, restart))

        def keep(done: int, *, at_once: bool = False) -> None:
            if at_once or checkpoints.is_due(done):
                recorded = recorder.flush()
                now = {"server": server.state(), "gate": gate.state(), "cache": coalition.cache.state()}
                checkpoints.save(done, {**now, **progress.state(recorded, time.perf_counter() - began)})

        keep(done)
        stack.enter_context(stopping.rounds())
        collect = Collector(config, nodes, exchange, asking, progress.session)
        for result in run_rounds(config, server, collect, gate, coalition.phase, first=done):
            report = result.report
            if coalition.is_active(report.round):
                progress.poisoned_rounds.append(report.round)
                progress.examples = example_images(setup.data, coalition.members, result) or progress.examples
            report.wall_s["attack"] = coalition.cache.seconds(report.round)
            report.attack.update(coalition.cache.notes(report.round))
            recorder.record(report)
            for tracker in trackers:
                tracker.record(report)
            on_round(config, report)
            keep(over := report.round + 1)
            if stopping.is_asked() and over < config.stream.rounds and is_between_replies(config, over):
                keep(over, at_once=True)
                raise stopping.Stopped
            del result  # with its messages: the next round's are about to come
        if isinstance(server, StreamServer) and config.quarantine.name != "none":
            server.save_models(folder)
        head = gate.head
    asked = ever_asked(config)
    members = tuple(member for member in coalition.members if member in asked)
    truth = Truth(members, tuple(progress.poisoned_rounds), coalition.poisoned_samples)
    seconds = {"startup": startup_s, "total": progress.seconds + time.perf_counter() - began}
    summary = _conclude(folder, setup, truth, progress.examples, server.baselines, burn_in, seconds, head)
    if trackers:
        from fedmd.report.html.write import write_report  # matplotlib is slow to import

        kept = [write_report(folder), folder / SUMMARY, folder / METRICS]
        for tracker in trackers:
            tracker.finish(numbers(summary), kept)
    return summary


def _conclude(
    folder: Path,
    setup: Setup,
    truth: Truth,
    examples: ExampleImages | None,
    baselines: Sequence[str],
    burn_in: Mapping[str, float | None],
    seconds: Mapping[str, float],
    head: Position | None,
) -> Json:
    """Write what is known once the rounds are over: the truth, the images for the eye, and last the summary.

    `burn_in` has what was measured before the first round, `seconds` the wall time, `head` is the trail's.
    """
    config = setup.data.config
    truth.write(folder)
    scores = score_labels(config, baselines)
    if examples is not None:
        write_example_images(folder, examples)
    if config.runtime.figures:
        from fedmd.report.figures.run import write_figures  # matplotlib is slow to import

        write_figures(folder, examples, held_score(scores), config.defense.stopping)
    summary = summarise(
        folder,
        truth=truth,
        burn_in_accuracy=burn_in["accuracy"],
        burn_in_attack_success=burn_in["attack_success"],
        defense_name=config.defense.name,
        scores=scores,
        n_clients=config.federation.clients,
        wall_s=seconds,
        seed=config.seed,
        config=json.loads(config.to_json()),
        versions=versions(),
    )
    summary["warnings"] = [
        *doubts.of_the_settings(setup.data),
        *doubts.of_the_results(summary, setup.data.images.labels[setup.data.split.test], _thresholds(config, folder)),
    ]
    if head is not None:
        summary["audit_head"] = asdict(head)
        log.info("audit head %d:%s", head.seq, head.hash)
    write_summary(folder, summary)
    return summary


def trackers_of(config: RunConfig, folder: Path) -> list[Tracker]:
    """Those that `tracking` names, told of the run; `runtime.tensorboard=true` is one of them."""
    from fedmd.report.results import flat  # pandas is slow to import

    names = dict.fromkeys([*config.tracking, *(["tensorboard"] if config.runtime.tensorboard else [])])
    trackers = [TRACKERS[name](folder) for name in names]
    for tracker in trackers:
        tracker.begin(folder.name, flat(json.loads(config.to_json())))
    return trackers


def _thresholds(config: RunConfig, folder: Path) -> list[float | None] | None:
    """The threshold of each round that had samples; None where the defence has no use for one."""
    if not defense_of(config).uses_threshold:
        return None
    return [row["threshold"] for row in read_metrics(folder) if row["samples"]]


def _exchange(grid: Grid, shared: Path) -> Exchange:
    """How the model gets to the clients of `grid`: the quickest way that reaches them; `shared` is a folder."""
    if is_remote(grid):
        return InMessage()
    return grid.exchange(shared) if isinstance(grid, LocalGrid) else ByReference(shared)


@dataclass
class Progress:
    """What of a run is no part of server, gate or clients, and outlives a killed server all the same.

    `session` names the run to the clients, however often its server is started again; `seconds` is what earlier
    servers spent; `examples` are the latest images for the eye.
    """

    session: str = field(default_factory=lambda: secrets.token_hex(8))
    poisoned_rounds: list[int] = field(default_factory=list)
    recorded: RecordPosition = field(default_factory=RecordPosition)
    seconds: float = 0.0
    examples: ExampleImages | None = None

    @classmethod
    def of(cls, saved: Saved | None) -> Self:
        """From what a checkpoint holds; that of a run that has not begun is None."""
        if saved is None:
            return cls()
        images = saved["examples"]
        return cls(
            saved["session"],
            list(saved["poisoned_rounds"]),
            RecordPosition(*saved["recorded"]),
            saved["seconds"],
            None if images is None else ExampleImages(*(tensor.numpy() for tensor in images)),
        )

    def state(self, recorded: RecordPosition, seconds: float) -> Saved:
        """For a checkpoint: with how far the record goes, and the seconds of this server."""
        shown = self.examples
        return {
            "session": self.session,
            "poisoned_rounds": self.poisoned_rounds,
            "recorded": list(astuple(recorded)),
            "seconds": self.seconds + seconds,
            "examples": shown and [torch.tensor(part) for part in (shown.clean, shown.poisoned, shown.corrected)],
        }


@contextmanager
def quiet_flower() -> Iterator[None]:
    """Without the log lines of Flower and its strategies, dozens a round: progress is the observer's.

    Errors still come through.
    """
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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
