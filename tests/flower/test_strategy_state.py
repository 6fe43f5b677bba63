"""What strategies remember: a fresh one that is given it goes on bit for bit, and one that is not does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.flower.server.continued import Continued
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)
from torch import nn

from fedmd.config import ConfigError
from fedmd.defense.history import Ema, Lag, Snapshot
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.catalogue import STRATEGIES
from fedmd.flower.strategies.flat import CenteredClipping, FLTrust, NormClipping
from fedmd.flower.strategies.screening import DiscrepancyScreening
from fedmd.flower.strategies.state import restore_strategy, strategy_state
from fedmd.storage import load_tree, save_tree

CLIENTS, DONE, ROUNDS = 7, 2, 4
ALL: dict[str, Any] = {
    "fraction_train": 1.0, "fraction_evaluate": 0.0, "min_train_nodes": 0, "min_evaluate_nodes": 0,
    "min_available_nodes": 0,
}  # fmt: skip


def screened(inner: Strategy) -> DiscrepancyScreening:
    """All three histories; the lag is longer than the rounds before the cut."""
    histories = (Lag(3), Ema(0.5), Snapshot())
    return DiscrepancyScreening(inner, model=nn.Linear(3, 2), probe=torch.eye(3), history=histories, threshold=10.0)


REMEMBERING: dict[str, Callable[[], Strategy]] = {
    "fedavgm": lambda: FedAvgM(**ALL, server_learning_rate=0.7, server_momentum=0.9),
    "fedadam": lambda: FedAdam(**ALL, eta=0.1),
    "fedyogi": lambda: FedYogi(**ALL, eta=0.1),
    "fedadagrad": lambda: FedAdagrad(**ALL, eta=0.1),
    "centered_clipping": lambda: CenteredClipping(**ALL, radius=0.1),
    "byzfl": lambda: ByzFL(**ALL, aggregator="CenteredClipping", options={"tau": 0.1}),
    "md_screen": lambda: screened(FedAvgM(**ALL, server_learning_rate=0.7, server_momentum=0.9)),
}
FORGETTING: dict[str, Callable[[], Strategy]] = {
    "fedavg": lambda: FedAvg(**ALL),
    "fedprox": lambda: FedProx(**ALL, proximal_mu=0.1),
    "fedmedian": lambda: FedMedian(**ALL),
    "fedtrimmedavg": lambda: FedTrimmedAvg(**ALL, beta=0.2),
    "krum": lambda: Krum(**ALL, num_malicious_nodes=1),
    "multikrum": lambda: MultiKrum(**ALL, num_malicious_nodes=1, num_nodes_to_select=5),
    "bulyan": lambda: Bulyan(**ALL, num_malicious_nodes=1),
    "norm_clipping": lambda: NormClipping(**ALL),
    "fltrust": lambda: FLTrust(**ALL, root_update=lambda server_round, start: {n: t + 0.1 for n, t in start.items()}),
    "fedavgm, neither": lambda: FedAvgM(**ALL, server_learning_rate=1.0, server_momentum=0.0),
    "byzfl, drawing": lambda: ByzFL(**ALL, aggregator="CAF", options={"f": 1}, seed=3),
}


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
def test_the_state_is_all_there_is_to_know(name: str, tmp_path: Path) -> None:
    """One played through, and one that is replaced half-way by a fresh one with the saved state."""
    build = {**REMEMBERING, **FORGETTING}[name]
    whole = numbers(play(build(), first_model(), 0, ROUNDS))
    half = build()
    arrays = play(half, first_model(), 0, DONE)
    save_tree(tmp_path / "state", {"strategy": strategy_state(half), "arrays": arrays.to_torch_state_dict()})
    torch.manual_seed(99)  # no rule may depend on what came before
    loaded, fresh = load_tree(tmp_path / "state"), build()
    restore_strategy(fresh, loaded["strategy"])
    arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in loaded["arrays"].items()})
    assert numbers(play(fresh, arrays, DONE, ROUNDS)) == whole
    forgetful = numbers(play(build(), arrays, DONE, ROUNDS))
    assert (forgetful == whole) == (name in FORGETTING)


def test_before_the_first_round_there_is_nothing_to_remember(tmp_path: Path) -> None:
    for build in (*REMEMBERING.values(), *FORGETTING.values()):
        save_tree(tmp_path / "state", {"strategy": strategy_state(build())})
        fresh = build()
        restore_strategy(fresh, load_tree(tmp_path / "state")["strategy"])
        assert numbers(play(fresh, first_model(), 0, 1)) == numbers(play(build(), first_model(), 0, 1))


def test_every_strategy_of_ours_is_covered() -> None:
    assert set(STRATEGIES) <= {*REMEMBERING, *FORGETTING}


class Own(FedAvg):
    """Somebody's subclass, which may keep anything."""


def test_what_is_not_known_is_refused_and_not_resumed_wrongly() -> None:
    for strategy in (Own(), QFedAvg(client_learning_rate=0.1), screened(Own())):
        assert strategy_state(strategy) is None
        with pytest.raises(ConfigError, match="cannot be saved; start anew"):
            restore_strategy(strategy, strategy_state(strategy))
    odd = ByzFL(**ALL, aggregator="Average")
    odd._rule.seen = [1, 2]  # type: ignore[attr-defined]
    assert strategy_state(odd) is None


def test_a_continued_strategy_is_told_the_runs_own_rounds() -> None:
    told: list[int] = []

    class Listening(FedAvg):
        def configure_train(self, server_round: int, *rest: Any) -> Any:
            told.append(server_round)
            return []

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            told.append(server_round)
            return None, None

        def configure_evaluate(self, server_round: int, *rest: Any) -> Any:
            told.append(server_round)
            return []

        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            told.append(server_round)

    class Silent:
        def send_and_receive(self, messages: Any, timeout: float) -> list[Message]:
            return list(messages)

    Continued(Listening(), 5).start(Silent(), first_model(), 2)  # type: ignore[arg-type]
    assert told == [6] * 4 + [7] * 4
