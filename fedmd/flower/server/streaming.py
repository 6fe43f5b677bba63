"""The round's transport in mode=stream: ask the nodes for their clients' batches, validate what comes."""

from collections.abc import Sequence
from dataclasses import replace

from flwr.app import Message
from flwr.serverapp import Grid
from torch import nn

from fedmd.config import RunConfig
from fedmd.flower.server.nodes import Nodes, size_of
from fedmd.flower.wire import STREAM, Expected, read_rounds, stream_request
from fedmd.flower.wire.model_exchange import Exchange, Published
from fedmd.rounds.session import Collected
from fedmd.types import Rejection, StreamBatch

_MESSAGE_BYTES = 2**26


class FlowerCollector:
    """Asks the nodes of a grid for their clients' batches. Replies are sorted by client before anything is summed.

    One round trip fetches the batches of federation.batches_per_reply rounds; the later ones wait here for their turn.
    """

    def __init__(self, grid: Grid, config: RunConfig, exchange: Exchange, expected: Expected) -> None:
        self._nodes = Nodes(grid, config, exchange.folder)
        self._exchange = exchange
        self._expected = replace(expected, max_samples=config.limits.max_samples or expected.max_samples)
        self._config = config
        self._ahead: dict[int, Collected] = {}
        self.session = ""  # what clients are told that the run is called

    def connect(self) -> None:
        """See `Nodes.connect`."""
        self._nodes.connect()

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        """One round: ask the nodes of `clients`, keep what is valid, note the reason for what is not."""
        if round not in self._ahead:
            self._ahead = dict(enumerate(self._fetch(round, clients, model), start=round))
        return self._ahead.pop(round)

    def _fetch(self, round: int, clients: Sequence[int], model: nn.Module) -> list[Collected]:
        """The rounds of one reply, beginning with `round`."""
        per_reply = self._config.federation.batches_per_reply
        rounds = min(per_reply - round % per_reply, self._config.stream.rounds - round)
        self._nodes.meet_new()
        asked = self._nodes.of(clients)
        subscribed = self._nodes.subscribers & set(asked.by_node)
        published = self._exchange.publish(round, model) if subscribed else Published()
        requests = {
            node: self._request(node, round, rounds, mine, published if node in subscribed else Published())
            for node, mine in asked.by_node.items()
        }
        replies = self._nodes.ask(requests)
        received = sum(size_of(reply) for reply in replies.values())
        read = [self._read(replies.get(node), round, rounds, mine) for node, mine in asked.by_node.items()]
        orphans = [Rejection(client, "no node answers for it") for client in asked.orphans]
        strangers, collected = self._nodes.strangers(), []
        for offset in range(rounds):
            batches = [batch for of_node in read for batch in of_node[offset][0]]
            rejections = orphans + [rejection for of_node in read for rejection in of_node[offset][1]]
            collected.append(self._closed(batches, rejections, received if offset == 0 else 0))
        collected[0] = replace(collected[0], strangers=strangers)
        return collected

    def _read(
        self, reply: Message | None, round: int, rounds: int, clients: Sequence[int]
    ) -> list[tuple[list[StreamBatch], list[Rejection]]]:
        most = self._config.limits.max_message_bytes or _MESSAGE_BYTES
        if reply is None:
            reason = "no answer before the deadline"
        elif (size := size_of(reply)) > most:
            reason = f"the message has {size} bytes of arrays, more than limits.max_message_bytes={most}"
        else:
            return read_rounds(reply, round, rounds, clients, self._expected)
        return [([], [Rejection(client, reason) for client in clients])] * rounds

    def _closed(self, batches: list[StreamBatch], rejections: list[Rejection], received: int) -> Collected:
        """The round with who is left, or without anybody where these are too few."""
        least = self._config.limits.min_clients
        if 0 < len(batches) < least:
            reason = f"only {len(batches)} clients sent a valid batch, fewer than limits.min_clients={least}"
            rejections = rejections + [Rejection(batch.client, reason, batch.content) for batch in batches]
            batches = []
        return Collected(
            tuple(sorted(batches, key=lambda batch: batch.client)),
            tuple(sorted(rejections, key=lambda rejection: rejection.client)),
            received,
            self._nodes.fingerprint_of,
        )

    def _request(self, node: int, round: int, rounds: int, clients: Sequence[int], published: Published) -> Message:
        content = stream_request(
            self._nodes.run,
            round,
            clients,
            self._exchange.folder,
            published.model_file,
            published.model,
            batches=rounds,
            session=self.session,
        )
        return Message(content, node, STREAM, group_id=str(round))
