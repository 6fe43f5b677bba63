"""A round's transport: ask the nodes for their clients' messages, validate what comes, sort it by client.

Samples and updates differ in how they are asked for and read (`AskForSamples`, `AskForUpdates`), and in nothing else.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Generic, Protocol

import numpy as np
from flwr.app import Message
from torch import nn

from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.server.spool import Spool
from fedmd.flower.strategies.aggregator import StrategyAggregator
from fedmd.flower.wire.extent import Extent, measure
from fedmd.flower.wire.header import Request, request_content
from fedmd.flower.wire.model_exchange import Exchange, Published
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, read_batches
from fedmd.flower.wire.updates import UPDATE, ClientUpdate, ExpectedUpdate, read_updates
from fedmd.rounds.records import Collected, M
from fedmd.training.local import floating
from fedmd.types import ImageSet, Rejection, StreamBatch

_MESSAGE_BYTES = 2**26  # the most samples in one reply, unless limits.max_message_bytes says otherwise
_ARRAY_HEADER_BYTES = 1024  # an array's own description, with room to spare

Read = list[tuple[list[M], list[Rejection]]]  # by round of a reply: what is valid, and why the rest is not


class Asking(Protocol[M]):
    """What is asked of clients, and how their node's reply is read.

    `noun` is what a message is called; `everybody_wants_model`: the model goes to every node, asked for or not.
    """

    message_type: str
    noun: str
    everybody_wants_model: bool
    rounds_per_reply: int

    def begin(self, round: int, clients: Sequence[int]) -> tuple[Sequence[int], Request]:
        """Whom of `clients` to ask, and what every request of the round has in common."""

    def extent(self, messages: int) -> Extent:
        """The most that a reply with so many messages may have."""

    def read(self, reply: Message, first: int, rounds: int, clients: Sequence[int]) -> Read[M]:
        """What is valid in a reply, round by round."""

    def seconds(self, messages: Sequence[M]) -> dict[str, float]:
        """What clients say that they spent, by stage."""


class AskForSamples:
    """The batches of mode=stream."""

    message_type, noun, everybody_wants_model = STREAM, "batch", False

    def __init__(self, config: RunConfig, images: ImageSet) -> None:
        channels, height, width = images.images.shape[1:]
        most = config.limits.max_samples or config.stream.batch_size
        self.expected = ExpectedBatch((channels, height, width), images.classes, most)
        self.rounds_per_reply = config.federation.batches_per_reply
        self._most = config.limits.max_message_bytes or _MESSAGE_BYTES
        self._run = config.to_json()

    def begin(self, round: int, clients: Sequence[int]) -> tuple[Sequence[int], Request]:
        """All of them."""
        return clients, Request(self._run, round, ())

    def extent(self, messages: int) -> Extent:
        """Images and labels, of limits.max_message_bytes together."""
        return Extent(messages, 2, self._most, f"limits.max_message_bytes={self._most}")

    def read(self, reply: Message, first: int, rounds: int, clients: Sequence[int]) -> Read[StreamBatch]:
        """See `read_batches`."""
        return read_batches(reply, first, rounds, clients, self.expected)

    def seconds(self, messages: Sequence[StreamBatch]) -> dict[str, float]:
        """Nothing."""
        return {}


class AskForUpdates:
    """The trained models of mode=update. Which clients train, and how, is the strategy's word."""

    message_type, noun, everybody_wants_model, rounds_per_reply = UPDATE, "update", True, 1

    def __init__(
        self,
        config: RunConfig,
        aggregator: StrategyAggregator,
        net: nn.Module,
        classes: int,
        max_examples: int,
        spool: Spool,
    ) -> None:
        tensors = floating(net.state_dict())
        slots = {name: (tuple(tensor.shape), np.dtype(np.float32)) for name, tensor in tensors.items()}
        self.expected = ExpectedUpdate(slots, config.limits.max_samples or max_examples)
        self._aggregator = aggregator
        self._spool = spool
        self._classes = classes
        self._most = config.limits.max_message_bytes
        self._run = config.to_json()

    def begin(self, round: int, clients: Sequence[int]) -> tuple[Sequence[int], Request]:
        """Those that the strategy picks."""
        self._spool.begin_round()
        asked, proximal_mu = self._aggregator.configure(round, clients)
        return asked, Request(self._run, round, (), proximal_mu=proximal_mu, classes=self._classes)

    def extent(self, messages: int) -> Extent:
        """The model's tensors, of limits.max_message_bytes together, or of what so many updates take."""
        tensors = self.expected.tensors
        if self._most is not None:
            return Extent(messages, len(tensors), self._most, f"limits.max_message_bytes={self._most}")
        one = sum(math.prod(shape) * 4 + _ARRAY_HEADER_BYTES for shape, _ in tensors.values())
        return Extent(messages, len(tensors), messages * one, f"the {messages * one} that the asked updates take")

    def read(self, reply: Message, first: int, rounds: int, clients: Sequence[int]) -> Read[ClientUpdate]:
        """See `read_updates`; a reply has the updates of one round. They are kept as a `Spool` does."""
        updates, rejections = read_updates(reply, first, clients, self.expected)
        return [([self._spool.keep(update) for update in updates], rejections)]

    def seconds(self, messages: Sequence[ClientUpdate]) -> dict[str, float]:
        """Their training."""
        return {"local_training": sum(update.seconds for update in messages)}


class Collector(Generic[M]):
    """Asks the nodes of a grid for their clients' messages; see `fedmd.rounds.protocols.Collect`.

    One round trip may fetch the messages of several rounds; the later ones wait here for their turn. `session` is what
    clients are told that the run is called. With runtime.overlap, nodes that do not look at the model are asked for
    the next messages as soon as these have come, and work while the server learns.
    """

    def __init__(self, config: RunConfig, nodes: Nodes, exchange: Exchange, asking: Asking[M], session: str) -> None:
        self._config = config
        self._rounds = config.stream.rounds
        self._overlap = config.runtime.overlap and not asking.everybody_wants_model
        self._threads = config.runtime.threads
        self._least = config.limits.min_clients
        self._nodes = nodes
        self._exchange = exchange
        self._asking = asking
        self._session = session
        self._ahead: dict[int, Collected[M]] = {}
        self._sent: dict[str, Message] = {}  # requests of the next round trip that are on their way

    def __call__(self, round: int, clients: Sequence[int], net: nn.Module) -> Collected[M]:
        """One round: ask the nodes of `clients`, keep what is valid, note the reason for what is not."""
        if round not in self._ahead:
            self._ahead = dict(enumerate(self._fetch(round, clients, net), start=round))
            following = max(self._ahead) + 1
            if self._overlap and following < self._rounds:
                self._sent = self._send_ahead(following, sample_clients(self._config, following), net)
        return self._ahead.pop(round)

    def _fetch(self, round: int, clients: Sequence[int], net: nn.Module) -> list[Collected[M]]:
        """The rounds of one reply, beginning with `round`."""
        rounds = self._rounds_together(round)
        self._nodes.meet_new()
        unassigned = self._nodes.assign(clients).unassigned
        answered_for = sorted(set(clients) - set(unassigned))
        clients, common = self._asking.begin(round, answered_for)
        assigned = self._nodes.assign(clients).by_node
        sent, self._sent = self._sent, {}
        asked = {request.metadata.dst_node_id for request in sent.values()}
        others = {node: mine for node, mine in assigned.items() if node not in asked}
        sent |= self._nodes.send(self._requests(common, rounds, others, net))
        with ThreadPoolExecutor(self._threads, thread_name_prefix="read") as pool:  # while others still work
            reading: dict[int, Future[tuple[int, Read[M]]]] = {}
            unread: deque[Future[tuple[int, Read[M]]]] = deque()
            for node, reply in self._nodes.replies(sent):
                reading[node] = pool.submit(self._read, reply, round, rounds, assigned[node])
                unread.append(reading[node])
                if len(unread) > 2 * self._threads:  # no more replies than that wait in memory to be read
                    unread.popleft().exception()
        silent = "no answer before the deadline"
        data = {node: each.result()[0] for node, each in reading.items()}
        read: list[Read[M]] = [
            reading[node].result()[1] if node in reading else _refused(silent, mine, rounds)
            for node, mine in assigned.items()
        ]
        nobody = [Rejection(client, "no node answers for it") for client in unassigned]
        collected = []
        for offset in range(rounds):
            messages = [message for of_node in read for message in of_node[offset][0]]
            refused = nobody + [rejection for of_node in read for rejection in of_node[offset][1]]
            collected.append(self._closed(messages, refused))
        received = sum(data.values())
        refused_nodes = self._nodes.refused_since_last_time()
        return [replace(collected[0], bytes_received=received, refused_nodes=refused_nodes), *collected[1:]]

    def _send_ahead(self, round: int, clients: Sequence[int], net: nn.Module) -> dict[str, Message]:
        """Ask for the round what can be asked before the model has moved."""
        clients, common = self._asking.begin(round, clients)
        assigned = self._nodes.assign(clients).by_node
        without_model = {node: mine for node, mine in assigned.items() if not self._wants_model(node)}
        return self._nodes.send(self._requests(common, self._rounds_together(round), without_model, net))

    def _rounds_together(self, round: int) -> int:
        """How many rounds, beginning with this one, share its round trip."""
        per_reply = self._asking.rounds_per_reply
        return min(per_reply - round % per_reply, self._rounds - round)

    def _wants_model(self, node: int) -> bool:
        return self._asking.everybody_wants_model or node in self._nodes.subscribers

    def _read(self, reply: Message, round: int, rounds: int, clients: Sequence[int]) -> tuple[int, Read[M]]:
        """The bytes of a node's reply, and what of it is valid; what is too large is not even read."""
        measured = measure(reply, self._asking.extent(len(clients) * rounds))
        if measured.excess is not None:
            return measured.data, _refused(measured.excess, clients, rounds, exceeds_bounds=True)
        return measured.data, self._asking.read(reply, round, rounds, clients)

    def _requests(
        self, common: Request, rounds: int, assigned: Mapping[int, Sequence[int]], net: nn.Module
    ) -> dict[int, Message]:
        """A request for each node; the model goes with those to nodes that want it."""
        wanting = set(filter(self._wants_model, assigned))
        published = self._exchange.publish(common.round, net) if wanting else Published()
        without = replace(common, session=self._session, exchange=self._exchange.folder, batches=rounds)
        with_model = replace(without, model_file=published.model_file, model=published.model)
        return {
            node: Message(
                request_content(replace(with_model if node in wanting else without, clients=tuple(mine))),
                node,
                self._asking.message_type,
                group_id=str(common.round),
            )
            for node, mine in assigned.items()
        }

    def _closed(self, messages: list[M], rejections: list[Rejection]) -> Collected[M]:
        """The round with who is left, or without anybody where these are too few."""
        if 0 < len(messages) < self._least:
            reason = (
                f"only {len(messages)} clients sent a valid {self._asking.noun}, "
                f"fewer than limits.min_clients={self._least}"
            )
            rejections = rejections + [Rejection(message.client, reason, message.content) for message in messages]
            messages = []
        return Collected(
            tuple(sorted(messages, key=lambda message: message.client)),
            tuple(sorted(rejections, key=lambda rejection: rejection.client)),
            0,
            self._nodes.fingerprint_of,
            wall_s=self._asking.seconds(messages),
        )


def _refused(reason: str, clients: Sequence[int], rounds: int, *, exceeds_bounds: bool = False) -> Read[Any]:
    """Nothing of these clients in any of the rounds."""
    return [([], [Rejection(client, reason, exceeds_bounds=exceeds_bounds) for client in clients])] * rounds
