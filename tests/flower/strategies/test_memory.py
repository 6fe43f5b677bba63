"""What strategies remember: a fresh one that is given it goes on bit for bit, and one that is not does not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from torch import nn

from fedmd.config import ConfigError, StrategyConfig
from fedmd.flower.strategies.base import EVERYBODY, StrategyPlugin, restore_memory
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.vectors import FLTrust
from fedmd.registry import STRATEGIES
from fedmd.storage import load_tree, save_tree

pytestmark = pytest.mark.usefixtures("quick_collections")
CLIENTS, DONE, ROUNDS = 7, 2, 4
RUN: Any = SimpleNamespace(federation=SimpleNamespace(sampled_clients=CLIENTS, clients=CLIENTS), seed=3)
SERVER: Any = SimpleNamespace(net=nn.Linear(3, 2))

REMEMBERING: dict[str, dict[str, Any]] = {
    "fedavgm": {"name": "fedavgm", "lr": 0.7},
    "fedadam": {"name": "fedadam", "lr": 0.1},
    "centered_clipping": {"name": "centered_clipping", "radius": 0.1},
    "byzfl": {"name": "byzfl", "aggregator": "CenteredClipping", "options": {"tau": 0.1}},
}
FORGETTING: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in ("fedavg", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum")},
    "bulyan": {"name": "bulyan"},
    "norm_clipping": {"name": "norm_clipping"},
    "fltrust": {"name": "fltrust"},
    "fedavgm, neither": {"name": "fedavgm", "momentum": 0.0},
    "byzfl, drawing": {"name": "byzfl", "aggregator": "CAF", "options": {"f": 1}},
}


def made(name: str) -> tuple[StrategyPlugin, Strategy]:
    plugin: StrategyPlugin = StrategyConfig.model_validate({**REMEMBERING, **FORGETTING}[name]).make()
    strategy = plugin.build(RUN, SERVER)
    if isinstance(strategy, FLTrust):  # the server's own training, in short
        strategy._root_update = lambda server_round, start: {n: t + 0.1 for n, t in start.items()}
    return plugin, strategy


class Nodes:
    """A grid of which only the names of its nodes are asked."""

    def get_node_ids(self) -> list[int]:
        return list(range(1, CLIENTS + 1))


def first_model() -> ArrayRecord:
    rng = np.random.default_rng(0)
    shapes = {"weight": (2, 3), "bias": (2,)}
    return ArrayRecord({n: Array(rng.standard_normal(s).astype(np.float32)) for n, s in shapes.items()})


def play(strategy: Strategy, arrays: ArrayRecord, first: int, last: int) -> ArrayRecord:
    """Rounds `first` to `last` - 1 (from 0) of a federation whose clients move a known, seeded way."""
    for round in range(first, last):
        requests = list(strategy.configure_train(round + 1, arrays, ConfigRecord(), Nodes()))  # type: ignore[arg-type]
        replies = []
        for request in sorted(requests, key=lambda message: message.metadata.dst_node_id):
            rng = np.random.default_rng((round, request.metadata.dst_node_id))
            moved = {
                name: Array((array.numpy() + 0.1 * rng.standard_normal(array.shape)).astype(np.float32))
                for name, array in arrays.items()
            }
            content = {"arrays": ArrayRecord(moved), "metrics": MetricRecord({"num-examples": 10})}
            replies.append(Message(RecordDict(content), reply_to=request))
        aggregated, _ = strategy.aggregate_train(round + 1, replies)
        assert aggregated is not None
        arrays = aggregated
    return arrays


def numbers(arrays: ArrayRecord) -> dict[str, tuple[str, list[Any]]]:
    return {name: (array.dtype, array.numpy().tolist()) for name, array in arrays.items()}


@pytest.mark.parametrize("name", [*REMEMBERING, *FORGETTING])
def test_the_memory_is_all_there_is_to_know(name: str, tmp_path: Path) -> None:
    """One played through, and one that is replaced half-way by a fresh one with the saved memory."""
    whole = numbers(play(made(name)[1], first_model(), 0, ROUNDS))
    plugin, half = made(name)
    arrays = play(half, first_model(), 0, DONE)
    save_tree(tmp_path / "state", {"strategy": plugin.memory(half), "arrays": arrays.to_torch_state_dict()})
    torch.manual_seed(99)  # no rule may depend on what came before
    loaded, (plugin, fresh) = load_tree(tmp_path / "state"), made(name)
    restore_memory(plugin, fresh, loaded["strategy"])
    arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in loaded["arrays"].items()})
    assert numbers(play(fresh, arrays, DONE, ROUNDS)) == whole
    forgetful = numbers(play(made(name)[1], arrays, DONE, ROUNDS))
    assert (forgetful == whole) == (name in FORGETTING)


def test_before_the_first_round_there_is_nothing_to_remember(tmp_path: Path) -> None:
    for name in (*REMEMBERING, *FORGETTING):
        plugin, strategy = made(name)
        save_tree(tmp_path / "state", {"strategy": plugin.memory(strategy)})
        plugin, fresh = made(name)
        restore_memory(plugin, fresh, load_tree(tmp_path / "state")["strategy"])
        assert numbers(play(fresh, first_model(), 0, 1)) == numbers(play(made(name)[1], first_model(), 0, 1))


def test_every_strategy_of_ours_is_covered() -> None:
    assert {plugin.name for plugin in STRATEGIES.own()} <= {*REMEMBERING, *FORGETTING}


class Own(StrategyPlugin):
    """Somebody's, which does not say what it remembers."""

    def build(self, run: Any, server: Any) -> Strategy:
        return FedAvg(**EVERYBODY)


def test_what_is_not_known_is_refused_and_not_resumed_wrongly() -> None:
    plugin, odd = made("byzfl")
    assert isinstance(odd, ByzFL)
    odd._rule.seen = [1, 2]  # type: ignore[attr-defined]
    own = Own(Own.Params())
    for unknown, strategy in ((plugin, odd), (own, own.build(RUN, SERVER))):
        assert unknown.memory(strategy) is None
        with pytest.raises(ConfigError, match="cannot be saved; start anew"):
            restore_memory(unknown, strategy, None)
