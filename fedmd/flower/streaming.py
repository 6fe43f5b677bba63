"""The round's transport: push requests to the nodes, pull and validate their replies, before a deadline."""

import time
from collections.abc import Mapping, Sequence
from logging import getLogger

from flwr.app import Message
from flwr.serverapp import Grid
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.flower.exchange import Exchange, Published
from fedmd.flower.messages import (
    INFO,
    STREAM,
    Expected,
    info_request,
    read_batches,
    read_info,
    stream_request,
)
from fedmd.server.session import Collected
from fedmd.types import Rejection, StreamBatch

log = getLogger(__name__)
_POLL_S = 0.005  # Grid.send_and_receive sleeps 0.1 s in simulation and 3 s in deployment; its own polls need not


class FlowerCollector:
    """Asks the nodes of a grid for their clients' batches. Replies are sorted by client before anything is summed."""

    def __init__(self, grid: Grid, config: RunConfig, exchange: Exchange, expected: Expected) -> None:
        self._grid = grid
        self._config = config
        self._run = config.to_json()
        self._exchange = exchange
        self._expected = expected
        self._node_of: dict[int, int] = {}
        self._subscribers: set[int] = set()

    def connect(self) -> None:
        """Wait for the federation's nodes and learn which clients each of them answers for.

        A client nobody speaks for is refused in every round. Raises ConfigError when nobody speaks for any.
        """
        deadline = time.monotonic() + self._config.federation.round_timeout_s
        wanted = self._config.federation.node_count
        while len(nodes := sorted(self._grid.get_node_ids())) < wanted and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        requests = {node: Message(info_request(self._run, self._exchange.folder), node, INFO) for node in nodes}
        for node, reply in self._ask(requests).items():
            self._register(node, reply)
        missing = sorted(set(range(self._config.federation.clients)) - set(self._node_of))
        if not self._node_of:
            raise ConfigError(
                f"federation.round_timeout_s: of {wanted} nodes {len(nodes)} came and none said within "
                f"{self._config.federation.round_timeout_s:g} s which clients it answers for."
            )
        if missing:
            log.warning("nobody answers for clients %s; they are refused in every round", missing)

    def _register(self, node: int, reply: Message) -> None:
        try:
            if reply.has_error():
                raise ValueError(reply.error.reason)
            clients, wants_model = read_info(reply, self._config.federation.clients)
            if taken := sorted(set(clients) & set(self._node_of)):
                raise ValueError(f"clients {taken} belong to another node already")
        except ValueError as error:
            log.warning("node %d is not part of the federation: %s", node, error)
            return
        self._node_of.update(dict.fromkeys(clients, node))
        if wants_model:
            self._subscribers.add(node)

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        """One round: ask the nodes of `clients`, keep what is valid, note the reason for what is not."""
        asked: dict[int, list[int]] = {}
        rejections = [Rejection(client, "no node answers for it") for client in clients if client not in self._node_of]
        for client in clients:
            if client in self._node_of:
                asked.setdefault(self._node_of[client], []).append(client)
        subscribed = self._subscribers & set(asked)
        published = self._exchange.publish(round, model) if subscribed else Published()
        requests = {
            node: self._request(node, round, mine, published if node in subscribed else Published())
            for node, mine in asked.items()
        }
        replies = self._ask(requests)
        batches: list[StreamBatch] = []
        for node, mine in asked.items():
            if node not in replies:
                rejections += [Rejection(client, "no answer before the deadline") for client in mine]
                continue
            valid, refused = read_batches(replies[node], round, mine, self._expected)
            batches += valid
            rejections += refused
        return Collected(
            tuple(sorted(batches, key=lambda batch: batch.client)),
            tuple(sorted(rejections, key=lambda rejection: rejection.client)),
            sum(_size(reply) for reply in replies.values()),
        )

    def _request(self, node: int, round: int, clients: Sequence[int], published: Published) -> Message:
        content = stream_request(
            self._run, round, clients, self._exchange.folder, published.model_file, published.model
        )
        return Message(content, node, STREAM, group_id=str(round))

    def _ask(self, requests: Mapping[int, Message]) -> dict[int, Message]:
        """Replies by node; a node that stays silent is absent. Replies are matched by the request they answer."""
        waiting: dict[str, int] = {}  # a node that left the federation gets no message id, and no entry
        for node, request in requests.items():
            waiting.update(dict.fromkeys(self._grid.push_messages([request]), node))
        replies: dict[int, Message] = {}
        deadline = time.monotonic() + self._config.federation.round_timeout_s
        while waiting and time.monotonic() < deadline:
            for reply in self._grid.pull_messages(list(waiting)):
                if (answered := reply.metadata.reply_to_message_id) in waiting:
                    replies[waiting.pop(answered)] = reply
            time.sleep(_POLL_S)
        return replies


def _size(reply: Message) -> int:
    """Bytes of array data in a reply."""
    if reply.has_error():
        return 0
    return sum(record.count_bytes() for record in reply.content.array_records.values())
