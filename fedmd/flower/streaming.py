"""The round's transport in mode=stream: ask the nodes for their clients' batches, validate what comes."""

from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid
from torch import nn

from fedmd.config import RunConfig
from fedmd.flower.exchange import Exchange, Published
from fedmd.flower.messages import STREAM, Expected, read_batches, stream_request
from fedmd.flower.nodes import Nodes, size_of
from fedmd.server.session import Collected
from fedmd.types import Rejection, StreamBatch


class FlowerCollector:
    """Asks the nodes of a grid for their clients' batches. Replies are sorted by client before anything is summed."""

    def __init__(self, grid: Grid, config: RunConfig, exchange: Exchange, expected: Expected) -> None:
        self._nodes = Nodes(grid, config, exchange.folder)
        self._exchange = exchange
        self._expected = expected

    def connect(self) -> None:
        """See `Nodes.connect`."""
        self._nodes.connect()

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        """One round: ask the nodes of `clients`, keep what is valid, note the reason for what is not."""
        asked = self._nodes.of(clients)
        rejections = [Rejection(client, "no node answers for it") for client in asked.orphans]
        subscribed = self._nodes.subscribers & set(asked.by_node)
        published = self._exchange.publish(round, model) if subscribed else Published()
        requests = {
            node: self._request(node, round, mine, published if node in subscribed else Published())
            for node, mine in asked.by_node.items()
        }
        replies = self._nodes.ask(requests)
        batches: list[StreamBatch] = []
        for node, mine in asked.by_node.items():
            if node not in replies:
                rejections += [Rejection(client, "no answer before the deadline") for client in mine]
                continue
            valid, refused = read_batches(replies[node], round, mine, self._expected)
            batches += valid
            rejections += refused
        return Collected(
            tuple(sorted(batches, key=lambda batch: batch.client)),
            tuple(sorted(rejections, key=lambda rejection: rejection.client)),
            sum(size_of(reply) for reply in replies.values()),
        )

    def _request(self, node: int, round: int, clients: Sequence[int], published: Published) -> Message:
        content = stream_request(
            self._nodes.run, round, clients, self._exchange.folder, published.model_file, published.model
        )
        return Message(content, node, STREAM, group_id=str(round))
