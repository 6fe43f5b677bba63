"""Whole runs side by side: what they say, who is tried again, in which order they start. A double in place of Ray."""

import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Hashable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import WorkerCrashedError

from fedmd.config import ConfigError, RunConfig
from fedmd.runs import cells as module
from fedmd.runs import cluster, engines, processes, ray_cells, simulation
from fedmd.runs.cell import Cell, CellsFailed, Failure, Watcher
from fedmd.runs.cells import Event, Finished, Places, burn_in_of, computed, side_by_side
from fedmd.runs.ledger import TRACEBACK, Broken, Ledger
from fedmd.runs.ray_cells import OnRay
from fedmd.runs.simulation import simulate
from fedmd.types import Json, RoundReport, Stage

Make = Callable[..., RunConfig]


class Listening(Watcher):
    """Writes down who said what."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []

    def stage(self, cell: Cell, stage: Stage) -> None:
        self.heard.append((cell.name, stage.name))

    def round(self, cell: Cell, report: RoundReport) -> None:
        self.heard.append((cell.name, f"round {report.round}"))

    def finished(self, cell: Cell, summary: Json) -> None:
        self.heard.append((cell.name, "finished"))

    def failed(self, failure: Failure, *, again: bool) -> None:
        self.heard.append((failure.cell.name, f"{failure.reason}{', again' if again else ''}"))


def lines(folder: Path) -> list[str]:
    return [line.partition(', "wall_s"')[0] for line in (folder / "metrics.jsonl").read_text().splitlines()]


# -- one cell ------------------------------------------------------------------------------------------------------


def test_a_cell_computes_what_it_would_compute_alone(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"attack.name": "label_flip", "attack.fraction": 0.4, "defense.name": "dsc"})
    events = list(computed(Cell(config, tmp_path / "cell")))
    simulate([Cell(config, tmp_path / "alone")])
    assert lines(tmp_path / "cell") == lines(tmp_path / "alone") and len(lines(tmp_path / "cell")) == 6
    epochs = [(event.done, event.steps) for event in events if isinstance(event, Stage) and event.name == "burn-in"]
    assert epochs == [(0, 2), (1, 2), (2, 2)]
    assert [event.round for event in events if isinstance(event, RoundReport)] == list(range(6))
    assert isinstance(events[-1], Finished) and events[-1].summary["seed"] == 0


def test_its_warnings_come_along(make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*arguments: Any, **keywords: Any) -> Json:
        logging.getLogger("fedmd.somewhere").warning("only %d clients", 3)
        return {}

    monkeypatch.setattr(module, "serve", serve)
    warning, last = computed(Cell(make_config(), tmp_path))
    assert isinstance(warning, logging.LogRecord) and warning.getMessage() == "only 3 clients"
    assert last == Finished({})
    assert not logging.getLogger("fedmd").handlers


@pytest.mark.parametrize("error", [ZeroDivisionError("by\nzero"), ConfigError("data.path: there is none.")])
def test_one_that_raises_says_so(
    error: Exception, make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*arguments: Any, **keywords: Any) -> Json:
        raise error

    monkeypatch.setattr(module, "serve", serve)
    (last,) = computed(Cell(make_config(), tmp_path))
    if isinstance(error, ConfigError):
        assert last == Broken("data.path: there is none", final=True) and not (tmp_path / TRACEBACK).exists()
    else:
        assert last == Broken(f"ZeroDivisionError: by zero, see {tmp_path / TRACEBACK}")
        assert "raise error" in (tmp_path / TRACEBACK).read_text()


# -- several, one after another ------------------------------------------------------------------------------------


def test_a_cell_that_fails_is_tried_again_and_the_others_finish(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, bool]] = []

    def serve(grid: Any, config: RunConfig, folder: Path, *others: Any, resume: bool, **keywords: Any) -> Json:
        tried.append((folder.name, resume))
        if folder.name == "always" or (folder.name, resume) == ("once", False):
            raise OSError("it broke")
        return {}

    monkeypatch.setattr(simulation, "serve", serve)
    watcher = Listening()
    cells = [Cell(make_config(), tmp_path / name) for name in ("always", "once", "never")]
    failures = simulate(cells, watcher)
    assert tried == [("always", False), ("once", False), ("never", False), ("always", True), ("once", True)]
    assert [failure.cell.name for failure in failures] == ["always"]
    told = f"OSError: it broke, see {tmp_path / 'always' / TRACEBACK}"
    assert [what for name, what in watcher.heard if name == "always"] == [f"{told}, again", told]
    assert watcher.heard[-1] == ("once", "finished") and not (tmp_path / "once" / TRACEBACK).exists()
    assert str(CellsFailed(failures, 3)).startswith("1 of 3 runs failed: always (OSError: it broke")
    with pytest.raises(OSError, match="it broke"):  # of one that is alone the caller hears at once
        simulate(cells[:1])


# -- several at once -----------------------------------------------------------------------------------------------


class Double:
    """`cores` places in this process: a cell goes on by an event each time that it is waited for."""

    def __init__(self, cores: int, script: Callable[[Cell], Iterator[Event]]) -> None:
        self.cores, self.script = cores, script
        self.most = 0
        self.started: list[Cell] = []

    def room(self) -> int:
        return self.cores

    def start(self, cell: Cell) -> Hashable:
        self.started.append(cell)
        return self.script(cell)

    def wait(self, started: Collection[Any], seconds: float) -> list[tuple[Hashable, Event]]:
        self.most = max(self.most, len(started))
        return [(events, next(events)) for events in started]


class RaysDouble:
    """`cores` cores of a cluster of two machines, one of them dead; a task's events come as they are asked for."""

    def __init__(self, cores: int, script: Callable[[Cell], Iterator[Any]]) -> None:
        self.cores, self.script = cores, script
        self.options: dict[str, Any] = {}

    def remote(self, function: Any) -> Any:
        def options(**keywords: Any) -> Any:
            self.options = keywords
            return SimpleNamespace(remote=self.script)

        return SimpleNamespace(options=options)

    def wait(self, tasks: list[Any], **keywords: Any) -> tuple[list[Any], list[Any]]:
        return tasks[:], []

    def get(self, event: Any) -> Any:
        if isinstance(event, Exception):
            raise event
        return event

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.cores}}, {"Alive": False, "Resources": {"CPU": 64}}]


def finishing(cell: Cell) -> Iterator[Any]:
    yield Stage("burn-in", 0, 2)
    yield RoundReport(0, *[None] * 10)  # type: ignore[arg-type]
    (cell.folder / "summary.json").write_text("{}")
    yield Finished({})


def run_on(places: Places, cells: list[Cell]) -> tuple[Listening, list[Failure]]:
    watcher = Listening()
    ledger = Ledger(watcher, lambda cell, summary: None)
    for cell in cells:
        cell.folder.mkdir()
    side_by_side(cells, places, ledger, watcher)
    return watcher, ledger.failures


def test_as_many_at_once_as_there_is_room_for(make_config: Make, tmp_path: Path) -> None:
    cells = [Cell(make_config(), tmp_path / str(number)) for number in range(7)]
    double = Double(3, finishing)
    watcher, failures = run_on(double, cells)
    assert double.most == 3 and not failures
    assert sum(what == "finished" for _, what in watcher.heard) == 7


def test_no_two_train_the_same_burn_in_at_once(make_config: Make, tmp_path: Path) -> None:
    settings = [(seed, name) for seed in (0, 1) for name in ("none", "label_flip", "noise")]
    cells = [
        Cell(make_config({"seed": seed, "attack.name": name}), tmp_path / f"{seed}{name}") for seed, name in settings
    ]
    assert burn_in_of(cells[0].config) == burn_in_of(cells[1].config) != burn_in_of(cells[3].config)
    double = Double(2, finishing)
    run_on(double, cells)
    assert [cell.config.seed for cell in double.started[:2]] == [0, 1]
    assert len(double.started) == 6


@pytest.fixture
def rays_double(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RaysDouble]:
    def put(*arguments: Any) -> RaysDouble:
        double = RaysDouble(*arguments)
        monkeypatch.setattr(ray_cells, "ray", double)
        monkeypatch.setitem(sys.modules, "ray", double)  # for `cluster.places`
        monkeypatch.setattr(
            ray_cells, "read_summary", lambda folder: {} if (folder / "summary.json").exists() else None
        )
        return double

    return put


def test_the_cells_that_a_cluster_has_room_for(make_config: Make, rays_double: Callable[..., RaysDouble]) -> None:
    double = rays_double(7, finishing)
    runtime = make_config({"runtime.client_cpus": 2}).runtime
    places = OnRay(runtime)
    assert places.room() == 3 and double.options["num_cpus"] == 2
    assert OnRay(runtime.model_copy(update={"workers": 2})).room() == 2
    double.cores = 1
    assert places.room() == 1  # until the machine is back
    with pytest.raises(ConfigError, match="has 2 CPU for a run"):
        OnRay(runtime)


def test_a_cell_whose_worker_is_gone_goes_on_elsewhere(
    make_config: Make, tmp_path: Path, rays_double: Callable[..., RaysDouble]
) -> None:
    """One dies once, one always, one hands in a summary that nobody here sees."""

    def script(cell: Cell) -> Iterator[Any]:
        yield Stage("data")
        if cell.name == "dead" or (cell.name == "dies" and not cell.resume):
            yield WorkerCrashedError()
        elif cell.name == "elsewhere":
            yield Finished({})
        else:
            yield from finishing(cell)

    rays_double(2, script)
    cells = [Cell(make_config(), tmp_path / name) for name in ("dies", "dead", "elsewhere", "lives")]
    watcher, failures = run_on(OnRay(cells[0].config.runtime), cells)
    reasons = {failure.cell.name: failure.reason for failure in failures}
    assert set(reasons) == {"dead", "elsewhere"}
    assert "WorkerCrashedError" in reasons["dead"] and "same folder on all machines" in reasons["elsewhere"]
    assert ("elsewhere", "finished") not in watcher.heard
    assert ("dies", "finished") in watcher.heard and ("lives", "finished") in watcher.heard


NET = """
import os, pathlib, signal, sys
from torch import nn
def build(channels, classes, image_size):
    mark = pathlib.Path("MARK")
    if "serve_forks" in " ".join(sys.orig_argv) and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
"""


def test_a_cell_whose_process_is_gone_goes_on_in_another(
    make_config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In real ones, with a net from a folder that only this process's path has: it kills the first that builds it."""
    (tmp_path / "net_that_kills.py").write_text(NET.replace("MARK", f"{tmp_path}/mark"))
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"model": {"name": "custom", "factory": "net_that_kills:build"}, "runtime.workers": 2}
    cells = [Cell(make_config({**changes, "seed": seed}), tmp_path / str(seed)) for seed in (0, 1)]
    watcher = Listening()
    assert simulate(cells, watcher) == []
    gone = [what for _, what in watcher.heard if what.startswith("its process ended without a word")]
    assert len(gone) == 1 and gone[0].endswith(", again")
    inline = {"runtime.engine": "inline", "runtime.workers": None}
    alone = [Cell(make_config({**changes, **inline, "seed": seed}), tmp_path / f"{seed} alone") for seed in (0, 1)]
    simulate(alone)
    assert all(lines(one.folder) == lines(other.folder) for one, other in zip(cells, alone, strict=True))
    assert len(lines(cells[0].folder)) == 6


FORKS = """
import os, socket, sys, time, types
from fedmd.runs import processes
def burn(events):
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass
    os._exit(0)
processes._compute = burn
sys.modules["fedmd.runs.simulation"] = types.ModuleType("as if imported")
ours, theirs = socket.socketpair()
for _ in range(2):
    socket.send_fds(ours, [b"1"], [os.open(os.devnull, os.O_RDONLY)])
ours.close()
processes.serve_forks(str(theirs.detach()))
times = os.times()
print(times.children_user + times.children_system)
"""


@pytest.mark.skipif(not processes.can_fork(), reason="nothing is forked here")
def test_cpu_time_of_cells_is_that_of_the_process_that_forked_them() -> None:
    """So whoever looks at a study's children, as the benchmark does, sees what its cells took."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert float(done.stdout) >= 0.55  # two of 0.3 s, as clocks of 0.01 s see them


# -- where ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "changes", "seconds", "where", "why"),
    [
        (8, {}, 100.0, "cells in processes", "about 100 s of computing on one core are worth"),
        (8, {}, 2.0, "here", "about 2 s of computing are done before others"),
        (8, {"runtime.threads": 3}, 100.0, "here", "room for one worker"),
        (8, {"runtime.engine": "inline"}, 100.0, "here", "runtime.engine"),
        (8, {"runtime.engine": "ray"}, 0.0, "cells on Ray", "runtime.engine"),
        (8, {"runtime.workers": 2}, 0.0, "cells in processes", "runtime.workers"),
        (8, {"runtime.spread": "clients"}, 0.0, "clients on Ray", "runtime.spread"),
        (8, {"runtime.ray_address": "auto"}, 0.0, "cells on Ray", "runtime.ray_address"),
        (8, {"runtime.client_gpus": 0.5}, 0.0, "cells on Ray", "runtime.client_gpus"),
        (1, {"runtime.engine": "ray"}, 0.0, "clients on Ray", "runtime.engine"),
        (1, {"runtime.spread": "cells"}, 0.0, "cells in processes", "runtime.spread"),
        (1, {}, 100.0, "clients on Ray", "about 100 s of the clients' computing on one core are worth"),
        (1, {}, 13.0, "here", "about 13 s of the clients' computing are done before"),
        (1, {}, 13.4, "clients on Ray", "worth"),  # four workers save three quarters of it
        (1, {"runtime.client_cpus": 3}, 100.0, "here", "room for one worker"),
        (1, {"federation.clients": 1}, 100.0, "here", "work for one"),
        (8, {"observability.json_logs": True}, 13.0, "here", "the clients' computing are done before"),
    ],
)
def test_where_and_why(
    cells: int,
    changes: dict[str, Any],
    seconds: float,
    where: str,
    why: str,
    make_config: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "estimated_seconds", lambda configs, passes: seconds)
    monkeypatch.setattr(engines, "available_cores", lambda: 4)
    section = {"observability": {"json_logs": False}} if "observability.json_logs" in changes else {}
    config = make_config({**section, **changes})
    found, told = engines.choose([config] * cells)
    assert found == where and why in told


@pytest.mark.parametrize(
    ("mode", "fraction", "of_clients"),
    [
        ("stream", 0.0, 0),  # who only sends computes nothing
        ("stream", 0.4, 3 * 150 * 2 * 4),  # accumulative rounds x members x their batch
        ("update", 0.0, 3 * 7 * 5 * 2 * 12),  # rounds x clients x epochs x samples
        ("update", 0.4, 3 * 7 * 5 * 2 * 12 + 3 * 15 * 20),  # and the attackers' own data, once for all of them
    ],
)
def test_the_estimate_counts_the_samples(
    mode: str, fraction: float, of_clients: int, make_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = {"mode": "update", "defense": {"name": "none"}, "local": {"samples": 12, "epochs": 2}}
    attack = {"name": "accumulative", "fraction": fraction}
    config = make_config({"attack": attack, "stream.accumulative_rounds": 3, **(update if mode == "update" else {})})
    assert engines._seconds_a_sample(config) > 0
    monkeypatch.setattr(engines, "_seconds_a_sample", lambda config: 0.001)
    found = engines.estimated_seconds([config] * 2, engines._client_passes)
    assert found == pytest.approx(2 * 0.001 * of_clients)
    burn_in, evaluated, judged = 3 * 2 * 60, 7 * 30, (10 + 3) * 7 * 5 * 4
    found = engines.estimated_seconds([config], engines._forward_passes)
    assert found == pytest.approx(0.001 * (burn_in + evaluated + judged + of_clients))


def test_an_address_where_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        cluster._require_somebody_at(f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match=rf"^runtime\.ray_address: nobody answers at 127\.0\.0\.1:{port} "):
        cluster._require_somebody_at(f"127.0.0.1:{port}")
    for other in ("auto", "local_path"):
        cluster._require_somebody_at(other)


def test_ray_that_was_imported_too_early(make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has read what it goes by, so nobody could close it: as in a notebook that begins with `import ray`."""
    monkeypatch.setattr(engines, "estimated_seconds", lambda configs, passes: 100.0)
    monkeypatch.setattr(engines, "available_cores", lambda: 4)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False))
    where, why = engines.choose([make_config()])
    assert where == "here" and why == "Ray was imported before this run, too late to close it to others"
    with pytest.raises(ConfigError, match=r"^runtime.engine: Ray was imported in this process before the run"):
        simulate([Cell(make_config({"runtime.engine": "ray"}), tmp_path / "run")])
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: True))  # somebody's own
    assert engines.choose([make_config()])[0] == "clients on Ray"


def test_what_a_worker_would_not_find_stays_here(make_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmd.attacks.base import Attack
    from fedmd.registry import ATTACKS, register_attack

    monkeypatch.setattr(ATTACKS, "_plugins", dict(ATTACKS._plugins))

    @register_attack("of_this_process")
    class Mine(Attack):
        """For a moment."""

    monkeypatch.setattr(engines, "available_cores", lambda: 4)
    config = make_config({"attack.name": "of_this_process"})
    assert engines.choose([config] * 9) == ("here", "attack=of_this_process is registered in this process alone")
    spread = make_config({"attack.name": "of_this_process", "runtime.spread": "cells"})
    with pytest.raises(ConfigError, match=r"^runtime.spread: cells is not for .*of_this_process"):
        engines.choose([spread] * 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"runtime.engine": "inline", "runtime.spread": "cells"},
        {"runtime.engine": "inline", "runtime.ray_address": "auto"},
        {"runtime.ray_address": "http://head:10001"},
    ],
)
def test_settings_that_say_nothing_are_refused(changes: dict[str, Any], make_config: Make) -> None:
    with pytest.raises(ConfigError, match=r"^runtime.(spread|ray_address): "):
        make_config(changes)
