"""A Flower strategy that aggregates nothing before the round is on record, and nothing of whom the guard keeps out."""

from collections.abc import Callable, Iterable

from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import Strategy

from fedmd.flower.strategies.delegating import Wrapped

Settle = Callable[[int], frozenset[int]]  # of how often the model has moved; the nodes to keep out


class Guarded(Wrapped):
    """`strategy`, but for the replies of the nodes that `settle` names; it is called, and returns, before aggregation.

    Stands inside of a screening, whose verdicts `settle` may know, and outside of what moves the model. `moves` counts
    how often it has.
    """

    def __init__(self, strategy: Strategy, settle: Settle) -> None:
        super().__init__(strategy)
        self._settle = settle
        self.weighted_by_key = str(getattr(strategy, "weighted_by_key", "num-examples"))
        self.moves = 0

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Settle, then let the strategy aggregate what may be learned from."""
        kept_out = self._settle(self.moves)
        remaining = [reply for reply in replies if reply.metadata.src_node_id not in kept_out]
        arrays, metrics = self.strategy.aggregate_train(server_round, remaining)
        self.moves += arrays is not None
        return arrays, metrics
