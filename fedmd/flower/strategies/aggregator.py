"""A Flower strategy as the server's aggregator: what `Strategy.start` would ask of it, asked by our own round loop.

Flower's own node ids are random, and one node may answer for many clients. For a strategy a client c is node c + 1
(0 is reserved): it sees this round's clients and gets their updates in the order of their ids, validated. What it
averages is then the same whatever the machine did.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from fedmd.defense.updates.discrepancy import State
from fedmd.flower.server.grids import BareGrid
from fedmd.flower.strategies.base import StrategyPlugin, restore_memory
from fedmd.flower.wire.updates import ClientUpdate, read_record
from fedmd.rounds.update import Contribution
from fedmd.storage import Saved

ARRAYS, METRICS, EXAMPLES = "arrays", "metrics", "num-examples"  # the names that Flower's strategies go by


class StrategyAggregator:
    """See `fedmd.rounds.update.Aggregator`; `plugin` made the `strategy`, `arrays` is the model to begin with."""

    def __init__(self, plugin: StrategyPlugin, strategy: Strategy, arrays: ArrayRecord) -> None:
        self._plugin = plugin
        self._strategy = strategy
        self._arrays = arrays
        self._round = 0
        self._asked: dict[int, Message] = {}
        self._before: tuple[ArrayRecord, dict[str, Any], Saved | None] = (arrays, {}, None)

    @property
    def state(self) -> State:
        """The global model in the strategy's own number format, which may be finer than the net's."""
        return read_record(self._arrays)

    def configure(self, round: int, clients: Sequence[int]) -> tuple[list[int], float]:
        """Whom of `clients` to ask in `round`, and FedProx's mu for them (0 under other strategies).

        Raises ValueError when a strategy sends different models to different clients.
        """
        self._round = round + 1  # Flower counts from 1
        messages = self._strategy.configure_train(self._round, self._arrays, ConfigRecord(), _Clients(clients))
        self._asked = {message.metadata.dst_node_id - 1: message for message in messages}
        contents = [message.content for message in self._asked.values()]
        if any(content is not contents[0] for content in contents):
            raise ValueError("strategies that send each client another model are not supported")
        config = next(iter(contents[0].config_records.values()), ConfigRecord()) if contents else ConfigRecord()
        return sorted(self._asked), cast(float, config.get("proximal-mu", 0.0))

    def aggregate(self, contributions: Sequence[Contribution]) -> bool:
        """Let the strategy make the next model; whether there is one."""
        own = not type(self._strategy).__module__.startswith(("flwr.", "fedmd."))  # which may write into what it gets
        replies = [
            Message(_content(each, copy=own), reply_to=self._asked[each.update.client]) for each in contributions
        ]
        self._before = self._arrays, dict(vars(self._strategy)), self._plugin.memory(self._strategy)
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it, the server looks at
            arrays, _ = self._strategy.aggregate_train(self._round, replies)
        if arrays is not None:
            self._arrays = arrays
        return arrays is not None

    def undo(self) -> None:
        """Be as before the last `aggregate`.

        Flower's strategies bind new arrays to their attributes, and change none in place; what lies deeper is `memory`.
        """
        self._arrays, attributes, memory = self._before
        vars(self._strategy).clear()
        vars(self._strategy).update(attributes)
        if memory is not None:
            self._plugin.restore(self._strategy, memory)

    def memory(self) -> Saved:
        """The model, and what the strategy remembers from round to round."""
        return {"arrays": self.state, "strategy": self._plugin.memory(self._strategy)}

    def restore(self, saved: Saved) -> None:
        """Put back what `memory` returned. Raises ConfigError where the strategy's memory was not saved."""
        restore_memory(self._plugin, self._strategy, saved["strategy"])
        self._arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in saved["arrays"].items()})


def _content(contribution: Contribution, *, copy: bool) -> RecordDict:
    update = cast(ClientUpdate, contribution.update)
    arrays = update.arrays
    if copy:
        arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in read_record(arrays).items()})
    if contribution.corrected is not None:
        arrays = ArrayRecord({name: Array(tensor.cpu().numpy()) for name, tensor in contribution.corrected.items()})
    return RecordDict({ARRAYS: arrays, METRICS: MetricRecord({EXAMPLES: contribution.examples})})


class _Clients(BareGrid):
    """A grid that a strategy can only ask for its nodes: this round's clients. Asking them is not its business."""

    refusal = "a strategy of mode=update says whom to ask in configure_train; it sends nothing itself"

    def __init__(self, clients: Sequence[int]) -> None:
        self._clients = clients

    def get_node_ids(self) -> list[int]:
        return [client + 1 for client in self._clients]
