"""Flower's identity of a ServerApp, a clock nobody waits for, and one cache for all federations of this folder."""

import gc
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fedmd.config import RunConfig
from fedmd.flower.server import nodes
from fedmd.flower.wire.model_exchange import ByReference, InMessage
from fedmd.runs.inline import server_identity
from fedmd.types import RoundReport
from tests.flower.federation import Outcome, Spoil, federate, simulated
from tests.inline import Clock

SMALL_UPDATES: dict[str, Any] = {
    "mode": "update",
    "model": {"name": "cnn", "width": 2},
    "local": {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": 24},
    "stream.clean_rounds": 1,
    "stream.accumulative_rounds": 1,
    "stream.recovery_rounds": 0,
    "defense": {"name": "none"},
}


@pytest.fixture(autouse=True, scope="session")
def identity() -> Iterator[None]:
    """Without one no message can be made."""
    with server_identity():
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Deadlines pass by polling, however slow the machine is."""
    clock = Clock()
    monkeypatch.setattr(nodes, "time", clock)
    return clock


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    """Flower's Bulyan collects garbage after every array: keep what is imported out of that."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Burn-in is trained once a setting."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small_updates(cache: Path) -> dict[str, Any]:
    """The settings of `run`'s federations, before changes."""
    return {**SMALL_UPDATES, "runtime.cache_dir": str(cache)}


@pytest.fixture
def run(
    make_config: Callable[..., RunConfig],
    small_updates: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """`run(changes)`: a federation of mode=update. Its folder is `tmp_path`/0, then 1, ..."""
    numbers = itertools.count()

    def start(
        changes: dict[str, Any] | None = None,
        nodes: int = 2,
        spoil: Mapping[int, Spoil] | None = None,
        by_reference: bool = False,
        watch: Callable[[RoundReport], None] = lambda report: None,
        mute: Collection[int] = (),
        outcome: Outcome | None = None,
    ) -> Outcome:
        config = make_config({**small_updates, "federation": {"clients": 5, "nodes": nodes}, **(changes or {})})
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        exchange = ByReference(folder) if by_reference else InMessage()
        grid = simulated(nodes, spoil, mute)
        return federate(grid, config, folder, exchange=exchange, watch=watch, outcome=outcome)

    return start
