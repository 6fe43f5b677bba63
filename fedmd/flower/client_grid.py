"""A grid whose nodes are the federation's clients, so that any Flower strategy runs on it untouched.

Flower's own node ids are random, and one node may answer for many clients. Here a client c is node c + 1 (0 is
reserved): a strategy sees this round's sampled clients, addresses each of them, and gets their replies in the order
of their ids, validated. What it averages is then the same whatever the machine did.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmd.flower.exchange import Exchange
from fedmd.flower.messages import UPDATE, ClientUpdate, ExpectedUpdate, read_updates, update_request
from fedmd.flower.nodes import Nodes, size_of
from fedmd.server.global_model import GlobalModel
from fedmd.training.local import floating
from fedmd.types import Rejection

ARRAYS, METRICS, EXAMPLES = "arrays", "metrics", "num-examples"  # the names that Flower's strategies go by


@dataclass(frozen=True)
class Exchanged:
    """What a round's asking brought: who answered, who was refused and why, how much, and how long it took."""

    clients: tuple[int, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    bytes_received: int = 0
    wall_s: dict[str, float] = field(default_factory=dict)


def node_of(client: int) -> int:
    """The node id under which a strategy knows `client`."""
    return client + 1


def client_of(node: int) -> int:
    """The client behind a strategy's node id."""
    return node - 1


def records_of(model: GlobalModel) -> ArrayRecord:
    """The model's floating-point tensors as Flower arrays."""
    return ArrayRecord({name: tensor.cpu() for name, tensor in floating(model.model.state_dict()).items()})


def expected_update(model: GlobalModel, max_examples: int) -> ExpectedUpdate:
    """What a valid update of `model` looks like."""
    tensors = floating(model.model.state_dict())
    return ExpectedUpdate({name: (tuple(t.shape), np.dtype(np.float32)) for name, t in tensors.items()}, max_examples)


class ClientGrid(Grid):
    """See the module. `start_round` names the clients of the next exchange; `exchanged` tells what came of it."""

    def __init__(self, grid: Grid, nodes: Nodes, exchange: Exchange, model: GlobalModel, max_examples: int) -> None:
        self._grid = grid
        self._nodes = nodes
        self._exchange = exchange
        self._model = model
        self._expected = expected_update(model, max_examples)
        self._round = 0
        self._clients: tuple[int, ...] = ()
        self.exchanged = Exchanged()

    def start_round(self, round: int, clients: Sequence[int]) -> None:
        """The next exchange is that of `round`, with `clients`."""
        orphans = self._nodes.of(clients).orphans
        self._round = round
        self._clients = tuple(client for client in clients if client not in orphans)
        self.exchanged = Exchanged(rejections=tuple(Rejection(client, "no node answers for it") for client in orphans))

    def get_node_ids(self) -> list[int]:
        """This round's clients, as nodes."""
        return [node_of(client) for client in self._clients]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Ask the addressed clients; valid replies in the order of their ids. The deadline is the federation's own.

        Raises ValueError when a strategy sends different models to different clients.
        """
        asked = {client_of(message.metadata.dst_node_id): message for message in messages}
        if not asked:
            return []
        started = time.perf_counter()
        content = next(iter(asked.values())).content
        if any(message.content is not content for message in asked.values()):
            raise ValueError("strategies that send each client another model are not supported")
        updates, rejections, received = self._collect(sorted(asked), content)
        wall_s = {
            "transport": time.perf_counter() - started,
            "local_training": sum(update.seconds for update in updates),
        }
        self.exchanged = Exchanged(
            tuple(update.client for update in updates),
            tuple(sorted((*self.exchanged.rejections, *rejections), key=lambda rejection: rejection.client)),
            received,
            wall_s,
        )
        return [Message(_as_strategies_want(update), reply_to=asked[update.client]) for update in updates]

    def _collect(
        self, clients: Sequence[int], content: RecordDict
    ) -> tuple[list[ClientUpdate], list[Rejection], int]:
        """Publish the model, ask the nodes, read what they send."""
        self._model.load(content.array_records[ARRAYS].to_torch_state_dict())
        published = self._exchange.publish(self._round, self._model.model)
        config = next(iter(content.config_records.values()), {})
        asked = self._nodes.of(clients).by_node
        requests = {
            node: Message(
                update_request(
                    self._nodes.run,
                    self._round,
                    mine,
                    self._exchange.folder,
                    cast(float, config.get("proximal-mu", 0.0)),
                    published.model_file,
                    published.model,
                ),
                node,
                UPDATE,
                group_id=str(self._round),
            )
            for node, mine in asked.items()
        }
        replies = self._nodes.ask(requests)
        updates: list[ClientUpdate] = []
        rejections: list[Rejection] = []
        for node, mine in asked.items():
            if node not in replies:
                rejections += [Rejection(client, "no answer before the deadline") for client in mine]
                continue
            valid, refused = read_updates(replies[node], self._round, mine, self._expected)
            updates += valid
            rejections += refused
        return (
            sorted(updates, key=lambda update: update.client),
            rejections,
            sum(size_of(reply) for reply in replies.values()),
        )

    # -- the rest of Flower's interface -------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run of the grid below."""
        return self._grid.run

    def set_run(self, run: Run) -> None:
        """Set the run of the grid below."""
        self._grid.set_run(run)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a client."""
        return Message(content, dst_node_id, message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Not offered: a client has no mailbox of its own. Raises TypeError."""
        raise TypeError("a strategy of mode=update asks clients through send_and_receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Not offered, see `push_messages`. Raises TypeError."""
        raise TypeError("a strategy of mode=update asks clients through send_and_receive")


def _as_strategies_want(update: ClientUpdate) -> RecordDict:
    return RecordDict({ARRAYS: update.arrays, METRICS: MetricRecord({EXAMPLES: update.examples})})
