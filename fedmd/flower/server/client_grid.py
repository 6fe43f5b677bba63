"""A grid whose nodes are the federation's clients, so that any Flower strategy runs on it untouched.

Flower's own node ids are random, and one node may answer for many clients. Here a client c is node c + 1 (0 is
reserved): a strategy sees this round's sampled clients, addresses each of them, and gets their replies in the order
of their ids, validated. What it averages is then the same whatever the machine did.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedmd.config import LimitsConfig
from fedmd.flower.server.model_records import bytes_of
from fedmd.flower.server.nodes import Nodes, size_of
from fedmd.flower.wire import UPDATE, ClientUpdate, ExpectedUpdate, read_updates, update_request
from fedmd.flower.wire.model_exchange import Exchange
from fedmd.rounds.gate import Admitted
from fedmd.rounds.global_model import GlobalModel
from fedmd.rounds.update_guard import Update
from fedmd.types import Rejection, Stranger

Admit = Callable[
    [int, Sequence[ClientUpdate], Sequence[Rejection], Mapping[int, str], Sequence[Stranger]], Admitted[Update]
]
ARRAYS, METRICS, EXAMPLES = "arrays", "metrics", "num-examples"  # the names that Flower's strategies go by


@dataclass(frozen=True)
class Exchanged:
    """What a round's asking brought: who was refused and why, how much, how long it took and until when.

    `admitted` are the valid updates as the guard sorted them; None while nobody was asked. `wall_s` has the seconds
    from asking to the last answer (transport, the clients' work included) and the sum of what the clients say they
    spent on training. `at` is a `time.perf_counter()`. `strangers` are the nodes not let in since the round before.
    """

    rejections: tuple[Rejection, ...] = ()
    admitted: Admitted[Update] | None = None
    bytes_received: int = 0
    wall_s: dict[str, float] = field(default_factory=dict)
    at: float = 0.0
    strangers: tuple[Stranger, ...] = ()


def node_of(client: int) -> int:
    """The node id under which a strategy knows `client`."""
    return client + 1


def client_of(node: int) -> int:
    """The client behind a strategy's node id."""
    return node - 1


class ClientGrid(Grid):
    """See the module. `start_round` names the clients of the next exchange; `exchanged` tells what came of it.

    `admit` is told every valid update, and says which of them the strategy gets to see.
    """

    def __init__(
        self,
        grid: Grid,
        nodes: Nodes,
        exchange: Exchange,
        model: GlobalModel,
        expected: ExpectedUpdate,
        limits: LimitsConfig,
        admit: Admit,
    ) -> None:
        self._grid = grid
        self._nodes = nodes
        self._exchange = exchange
        self._model = model
        self._expected = expected
        self._limits = limits
        self._admit = admit
        self.round = 0
        self._clients: tuple[int, ...] = ()
        self.exchanged = Exchanged()

    def start_round(self, round: int, clients: Sequence[int]) -> None:
        """The next exchange is that of `round`, with `clients`."""
        self._nodes.meet_new()
        orphans = self._nodes.of(clients).orphans
        self.round = round
        self._clients = tuple(client for client in clients if client not in orphans)
        refused = tuple(Rejection(client, "no node answers for it") for client in orphans)
        self.exchanged = Exchanged(refused, at=time.perf_counter(), strangers=self._nodes.strangers())

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
        refused = tuple(sorted((*self.exchanged.rejections, *rejections), key=lambda rejection: rejection.client))
        at = time.perf_counter()
        strangers = self.exchanged.strangers
        admitted = self._admit(self.round, updates, refused, self._nodes.fingerprint_of, strangers)
        heard = {update.client for update in admitted.heard}
        self.exchanged = Exchanged(refused, admitted, received, wall_s, at, strangers)
        return [
            Message(_as_strategies_want(update), reply_to=asked[update.client])
            for update in updates
            if update.client in heard
        ]

    def _collect(self, clients: Sequence[int], content: RecordDict) -> tuple[list[ClientUpdate], list[Rejection], int]:
        """Publish the model, ask the nodes, read what they send."""
        self._model.load(content.array_records[ARRAYS].to_torch_state_dict())
        published = self._exchange.publish(self.round, self._model.model)
        config = next(iter(content.config_records.values()), ConfigRecord())
        asked = self._nodes.of(clients).by_node
        requests = {
            node: Message(
                update_request(
                    self._nodes.run,
                    self.round,
                    mine,
                    self._exchange.folder,
                    cast(float, config.get("proximal-mu", 0.0)),
                    published.model_file,
                    published.model,
                    classes=self._model.trusted_set.classes,
                ),
                node,
                UPDATE,
                group_id=str(self.round),
            )
            for node, mine in asked.items()
        }
        replies = self._nodes.ask(requests)
        updates: list[ClientUpdate] = []
        rejections: list[Rejection] = []
        for node, mine in asked.items():
            valid, refused = self._read(replies.get(node), mine)
            updates += valid
            rejections += refused
        if 0 < len(updates) < (least := self._limits.min_clients):
            reason = f"only {len(updates)} clients sent a valid update, fewer than limits.min_clients={least}"
            rejections += [Rejection(update.client, reason, update.content) for update in updates]
            updates = []
        return (
            sorted(updates, key=lambda update: update.client),
            rejections,
            sum(size_of(reply) for reply in replies.values()),
        )

    def _read(self, reply: Message | None, clients: Sequence[int]) -> tuple[list[ClientUpdate], list[Rejection]]:
        """What is valid in a node's reply, and why the rest is not; what is too large is not even read."""
        room = len(clients) * bytes_of(self._expected)
        most = self._limits.max_message_bytes
        if reply is None:
            reason = "no answer before the deadline"
        elif (size := size_of(reply)) > (room if most is None else most):
            bound = f"the {room} that the asked updates take" if most is None else f"limits.max_message_bytes={most}"
            reason = f"the message has {size} bytes of arrays, more than {bound}"
        else:
            return read_updates(reply, self.round, clients, self._expected)
        return [], [Rejection(client, reason) for client in clients]

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
