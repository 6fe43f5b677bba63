"""Two machines, played by two nodes of a Ray cluster on this one, of which one dies while it computes."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("cells on Ray")]
FEDMD = Path(sys.executable).parent / "fedmd"
Metrics = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, closed to strangers as the simulations of other tests in this process are."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


def fedmd(command: str, folder: Path, cache: Path, cluster: Any, *more: str) -> subprocess.Popen[str]:
    arguments = [command, "experiment=smoke", "runtime.device=cpu", f"runtime.ray_address={cluster.address}", *more]
    own = [f"runtime.cache_dir={cache}", f"hydra.{'run' if command == 'run' else 'sweep'}.dir={folder}"]
    return subprocess.Popen(
        [FEDMD, *arguments, *own], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "it does not come"
        time.sleep(0.02)


def rounds(folder: Path) -> list[dict[str, Any]]:
    metrics = folder / "metrics.jsonl"
    return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []


def lose_a_node(cluster: Any) -> None:
    """Without a word, as a machine goes whose plug is pulled."""
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)


def test_the_clients_of_a_node_that_died_are_asked_elsewhere(cache: Path, tmp_path: Path, cluster: Any) -> None:
    long = ["stream.clean_rounds=30", "federation.round_timeout_s=200", "attack=none"]
    process = fedmd("run", tmp_path, cache, cluster, "runtime.spread=clients", *long)
    wait_for(lambda: len(rounds(tmp_path)) >= 3, process)
    lose_a_node(cluster)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found = rounds(tmp_path)
    assert [one["clients"] for one in found[:3]] == [4, 4, 4] and len(found) == 33
    assert all(one["clients"] == 4 and not one["rejections"] for one in found)  # the worker that is left has asked all


def test_the_cells_of_a_node_that_died_go_on_elsewhere(
    cache: Path, tmp_path: Path, cluster: Any, metrics: Metrics
) -> None:
    settings = ["compare.seeds=[0]", "stream.clean_rounds=40"]
    process = fedmd("compare", tmp_path / "lost", cache, cluster, *settings)
    wait_for(
        lambda: len([one for one in (tmp_path / "lost").rglob("metrics.jsonl") if len(rounds(one.parent)) > 3]) >= 2,
        process,
    )
    lose_a_node(cluster)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert err.count("it is tried once more") == 1
    assert "[  5/5]" in out
    peace = [FEDMD, "compare", "experiment=smoke", "runtime.device=cpu", "runtime.engine=inline", *settings]
    peace += [f"runtime.cache_dir={cache}", f"hydra.sweep.dir={tmp_path / 'peace'}"]
    subprocess.run(peace, check=True, capture_output=True)
    for path in (tmp_path / "peace").rglob("metrics.jsonl"):
        assert metrics(path.parent) == metrics(tmp_path / "lost" / path.parent.relative_to(tmp_path / "peace"))
