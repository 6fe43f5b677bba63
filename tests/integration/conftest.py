"""Small federations for all tests of this folder: many in this process, and a few of the same on Ray."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedmd.config import RunConfig
from fedmd.flower.client import app as client_app
from fedmd.flower.wire.header import read_request
from fedmd.flower.wire.samples import STREAM
from fedmd.runs import simulation
from fedmd.runs.cell import Cell, Watcher
from fedmd.runs.compose import Composed, compose
from fedmd.runs.launch import launch
from fedmd.runs.simulation import simulate
from fedmd.types import Json, RoundReport

# A net that learns something in a second: 4 clients, two of them malicious, 1 + 1 + 1 + 1 rounds.
SMALL = [
    "experiment=smoke",
    "defense=dsc",
    "threshold.fpr=0.3",
    "training.burn_in.batch_size=25",
    "training.burn_in.epochs=4",
    "training.online.lr=0.05",
    "runtime.device=cpu",
]
FIGURES = "runtime.figures=true"
BROKEN_SEED = 77  # in this cell client 1's process fails in round 1
CELLS: dict[str, list[str]] = {
    "base": [FIGURES],
    "again": [],
    "two nodes": ["federation.nodes=2"],
    "attack none": ["attack=none", FIGURES],
    "fraction zero": ["attack.fraction=0"],
    "other seed": ["seed=1"],
    "sampled": ["federation.clients_per_round=2", "seed=2"],
    "broken": [f"seed={BROKEN_SEED}"],
    "trigger only": ["attack=trigger_only"],
    "backdoor": ["attack=backdoor", "attack.target=3"],
    "update": [
        "mode=update",
        "defense=md_screen",
        "local.samples=40",
        "threshold.fpr=0.05",
        FIGURES,
    ],  # as if not typed
}


@dataclass(frozen=True)
class Runs:
    """Run folders and returned summaries by name; `reports` as the observer was told them, by folder."""

    folders: dict[str, Path]
    summaries: dict[str, Json]
    configs: dict[str, RunConfig]
    rounds_told: list[int]


def composed(folder: Path, cache: Path, *overrides: str) -> Composed:
    """A small federation that fills `folder`."""
    chosen = {override.partition("=")[0] for override in overrides}
    base = [override for override in SMALL if override.partition("=")[0] not in chosen]
    own = ["runtime.progress=false", f"runtime.cache_dir={cache}", f"hydra.run.dir={folder}"]
    return compose([*base, *own, *overrides])


@pytest.fixture(scope="session")
def small() -> list[str]:
    """The settings of a small federation, for the command line."""
    return SMALL


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all: burn-in is trained once a seed, as for a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def runs(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """CELLS, in this process."""
    root = tmp_path_factory.mktemp("runs")
    cells = {
        name: composed(root / name.replace(" ", "-"), cache, "runtime.engine=inline", *changes)
        for name, changes in CELLS.items()
    }
    summaries: dict[Path, Json] = {}
    told: list[int] = []

    class Told(Watcher):
        def round(self, cell: Cell, report: RoundReport) -> None:
            told.append(report.round)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulation, "client_app", breaking(client_app.app))
        simulate(
            [Cell(one.config, one.folder) for one in cells.values()],
            Told(),
            on_finished=lambda cell, summary: summaries.update({cell.folder: summary}),
        )
    yield Runs(
        {name: one.folder for name, one in cells.items()},
        {name: summaries[one.folder] for name, one in cells.items()},
        {name: one.config for name, one in cells.items()},
        told,
    )


@pytest.fixture(scope="session")
def on_ray(runs: Runs, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Cells of both modes, one of them with two nodes, on two Ray workers; beside a run that is finished already."""
    root = runs.folders["again"].parent / "two"  # beside the others: the sweep's report looks at all there is below
    changes = {"base": [], "two nodes": ["federation.nodes=2"], "update": CELLS["update"]}
    ray = ["runtime.engine=ray", "runtime.spread=clients", "runtime.workers=2"]
    fresh = {name: composed(root / name.replace(" ", "-"), cache, *ray, *more) for name, more in changes.items()}
    finished = composed(runs.folders["again"], cache)
    before = (finished.folder / "summary.json").stat().st_mtime_ns
    launch([finished, *fresh.values()], Watcher(), sweep=True)
    assert (finished.folder / "summary.json").stat().st_mtime_ns == before
    return {name: one.folder for name, one in fresh.items()}


def breaking(app: ClientApp) -> ClientApp:
    """`app`, except that one client of one configuration raises in one round. (Closures: workers get them by value.)"""

    def fail(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == STREAM:
            request = read_request(message)
            if RunConfig.parse(request.run).seed == BROKEN_SEED and (request.round, request.clients) == (1, (1,)):
                raise OSError("my disk is gone")
        return call_next(message, context)

    wrapper = ClientApp(mods=[fail])

    @wrapper.query("info")
    def info(message: Message, context: Context) -> Message:
        return app(message, context)

    @wrapper.train("stream")
    def stream(message: Message, context: Context) -> Message:
        return app(message, context)

    @wrapper.train("update")
    def update(message: Message, context: Context) -> Message:
        return app(message, context)

    return wrapper


@pytest.fixture(scope="session")
def metrics() -> Callable[..., list[Json]]:
    """The lines of a folder's metrics.jsonl without the one key that may differ, as written otherwise."""
    import json

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [{key: value for key, value in line.items() if key != "wall_s"} for line in lines]

    return read
