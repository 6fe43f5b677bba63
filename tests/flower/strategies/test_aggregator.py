"""A Flower strategy in our own loop: it is asked as `Strategy.start` would, with clients in the place of nodes."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx, Strategy

from fedmd.config import StrategyConfig
from fedmd.flower.strategies.aggregator import StrategyAggregator
from fedmd.flower.strategies.base import EVERYBODY, StrategyPlugin
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.rounds.update import Contribution

PLUGIN: StrategyPlugin = StrategyConfig.model_validate({"name": "fedavg"}).make()


def record(value: float) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.full(2, value, np.float32))})


def aggregator(strategy: Strategy) -> StrategyAggregator:
    return StrategyAggregator(PLUGIN, strategy, record(1.0))


def contribution(client: int, value: float, examples: int) -> Contribution:
    return Contribution(ClientUpdate(client, record(value), examples, 0.1), examples)


def values(of: StrategyAggregator) -> list[float]:
    return of.state["w"].tolist()  # type: ignore[no-any-return]


def test_a_weighted_mean_by_hand() -> None:
    made = aggregator(FedAvg(**EVERYBODY))
    assert made.configure(0, (4, 0, 2)) == ([0, 2, 4], 0.0)
    assert made.aggregate([contribution(0, 2.0, 1), contribution(4, 6.0, 3)])
    assert values(made) == [5.0, 5.0]


def test_a_corrected_update_takes_the_place_of_what_was_sent() -> None:
    made = aggregator(FedAvg(**EVERYBODY))
    made.configure(0, (0,))
    sent = contribution(0, 9.0, 1)
    made.aggregate([Contribution(sent.update, 1.0, aggregator(FedAvg()).state)])
    assert values(made) == [1.0, 1.0]


def test_nothing_left_keeps_the_model() -> None:
    made = aggregator(FedAvg(**EVERYBODY))
    made.configure(0, (0, 1))
    assert not made.aggregate([])
    assert values(made) == [1.0, 1.0]


def test_the_strategy_says_whom_to_ask_and_fedprox_how() -> None:
    asked, mu = aggregator(FedProx(**EVERYBODY, proximal_mu=0.3)).configure(2, (0, 1, 2, 3))
    assert asked == [0, 1, 2, 3] and mu == pytest.approx(0.3)
    asked, _ = aggregator(FedAvg(**{**EVERYBODY, "fraction_train": 0.5})).configure(2, (0, 1, 2, 3))
    assert len(asked) == 2 and set(asked) < {0, 1, 2, 3}


def test_it_is_told_the_runs_own_rounds_and_the_clients_as_nodes() -> None:
    """Flower counts rounds from 1 and reserves node 0; a run that goes on does not begin with round 1 again."""
    told: list[tuple[int, list[int]]] = []

    class Listening(FedAvg):
        def configure_train(
            self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
        ) -> Iterable[Message]:
            told.append((server_round, list(grid.get_node_ids())))
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            replies = list(replies)
            told.append((server_round, [reply.metadata.src_node_id for reply in replies]))
            return super().aggregate_train(server_round, replies)

    made = aggregator(Listening(**EVERYBODY))
    made.configure(5, (0, 3))
    made.aggregate([contribution(3, 1.0, 1)])
    assert told == [(6, [1, 4]), (6, [4])]


def test_a_strategy_that_sends_each_client_another_model_is_refused() -> None:
    class Personal(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Grid) -> Iterable[Message]:
            return [Message(RecordDict({"arrays": record(n)}), n, "train") for n in grid.get_node_ids()]

    with pytest.raises(ValueError, match="another model"):
        aggregator(Personal()).configure(0, (0, 1))


def test_a_strategy_that_asks_clients_by_itself_is_refused() -> None:
    class Eager(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Grid) -> Iterable[Message]:
            grid.send_and_receive([])
            return []

    with pytest.raises(TypeError, match="it sends nothing itself"):
        aggregator(Eager()).configure(0, (0, 1))


def test_the_finer_format_of_a_strategy_is_kept() -> None:
    """What the next round starts from is the strategy's array as it is, also after a checkpoint."""
    made = StrategyAggregator(PLUGIN, FedAvg(**EVERYBODY), ArrayRecord({"w": Array(np.full(2, 1 / 3, np.float64))}))
    fresh = aggregator(FedAvg(**EVERYBODY))
    fresh.restore(made.memory())
    assert fresh.state["w"].numpy().dtype == np.float64 and values(fresh) == values(made) == [1 / 3, 1 / 3]
