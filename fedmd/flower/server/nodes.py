"""Flower's nodes behind a federation's clients: who answers for whom, and asking them before a deadline."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger

from flwr.app import Message
from flwr.serverapp import Grid

from fedmd.config import ConfigError, RunConfig
from fedmd.flower.server.grids import LocalGrid, is_remote
from fedmd.flower.server.identity import fingerprints, read_register
from fedmd.flower.server.pull import Pulls
from fedmd.flower.wire.extent import Extent, measure
from fedmd.flower.wire.header import INFO, info_request, read_info
from fedmd.flower.wire.reasons import shown
from fedmd.types import RefusedNode

log = getLogger(__name__)
_POLL_S = 0.005  # Grid.send_and_receive sleeps 0.1 s in simulation and 3 s in deployment; its own polls need not
_ATTEMPTS = 3  # a node that never says whom it answers for must not cost every round its deadline
_POLL_HTTP_S = 0.25  # each poll of a real SuperLink is a TLS request, which costs both ends a few milliseconds
_LAST_LOOK_S = 1.0  # what is there when the deadline has passed must still get through a slow network or machine
_KEPT_ROUNDS, _KEPT_S = 10, 3600.0  # long enough for nodes whose clocks are minutes ahead of the server's


@dataclass(frozen=True)
class Assignment:
    """A round's clients by the node that answers for them, and those that no node answers for."""

    by_node: dict[int, list[int]]
    unassigned: tuple[int, ...]


class Nodes:
    """The nodes of a grid, each with the clients it answers for. `subscribers` want the model."""

    def __init__(self, grid: Grid, config: RunConfig, folder: str) -> None:
        self._grid = grid
        self._config = config
        self._folder = folder
        self._pulls = Pulls(grid) if is_remote(grid) else None
        self._poll_s = _POLL_S if self._pulls is None else _POLL_HTTP_S
        register = config.federation.register_file
        self._register_file = None if register is None else read_register(register)
        self.run = config.to_json()
        self._node_of: dict[int, int] = {}
        self._asked: Counter[int] = Counter()
        self._answered: set[int] = set()
        self.fingerprint_of: dict[int, str] = {}  # by client, where a register of keys is kept
        self.subscribers: set[int] = set()
        self._refused: list[RefusedNode] = []

    def connect(self) -> None:
        """Wait for the federation's nodes and learn which clients each of them answers for.

        A client nobody speaks for is refused in every round. Raises ConfigError when nobody speaks for any.
        """
        deadline = time.monotonic() + self._config.federation.round_timeout_s
        federation = self._config.federation
        wanted = federation.simulated_nodes if self._pulls is None else federation.node_count
        while len(nodes := sorted(self._grid.get_node_ids())) < wanted and time.monotonic() < deadline:
            time.sleep(self._poll_s)
        self._meet(nodes)
        missing = sorted(set(range(federation.clients)) - set(self._node_of))
        if not self._node_of:
            raise ConfigError(
                f"federation.round_timeout_s: of {wanted} nodes {len(nodes)} came and none said within "
                f"{self._config.federation.round_timeout_s:g} s which clients it answers for."
            )
        if missing:
            log.warning("nobody answers for clients %s; they are refused in every round", shown(missing))

    def meet_new(self) -> None:
        """Ask nodes that have come since, or were too slow, while there are clients nobody answers for."""
        if len(self._node_of) < self._config.federation.clients:
            new = set(self._grid.get_node_ids()) - self._answered
            self._meet(sorted(node for node in new if self._asked[node] < _ATTEMPTS))

    def _meet(self, nodes: Sequence[int]) -> None:
        if not nodes:
            return
        keys = {} if self._register_file is None else fingerprints(self._grid)
        self._asked.update(nodes)
        requests = {node: Message(info_request(self.run, self._folder), node, INFO) for node in nodes}
        for node, reply in self.ask(requests):
            self._answered.add(node)
            self._register(node, reply, keys.get(node, ""))

    def _register(self, node: int, reply: Message, key: str) -> None:
        try:
            known = self._config.federation.clients
            if (excess := measure(reply, Extent(known, 0, 0, "the 0 of this answer")).excess) is not None:
                raise ValueError(excess)
            clients, wants_model = read_info(reply, known)
            if taken := sorted(client for client in clients if client in self._node_of):
                raise ValueError(f"clients {taken} belong to another node already")
            if self._register_file is not None and (
                foreign := sorted(set(clients) - self._register_file.get(key, frozenset()))
            ):
                raise ValueError(f"its key {key or '(none)'} may not speak for clients {foreign}")
        except ValueError as error:
            self._refused.append(RefusedNode(f"node {node} is not part of the federation: {error}", key or None))
            log.warning("%s", self._refused[-1].reason)
            return
        self._node_of.update(dict.fromkeys(clients, node))
        if key:
            self.fingerprint_of.update(dict.fromkeys(clients, key))
        if wants_model:
            self.subscribers.add(node)

    def refused_since_last_time(self) -> tuple[RefusedNode, ...]:
        """The nodes that were not let in since the last call."""
        refused, self._refused = tuple(self._refused), []
        return refused

    def assign(self, clients: Sequence[int]) -> Assignment:
        """Whom to ask for `clients`."""
        by_node: dict[int, list[int]] = {}
        for client in clients:
            if client in self._node_of:
                by_node.setdefault(self._node_of[client], []).append(client)
        return Assignment(by_node, tuple(client for client in clients if client not in self._node_of))

    def ask(self, requests: Mapping[int, Message]) -> Iterator[tuple[int, Message]]:
        """`replies` to requests that are sent now."""
        return self.replies(self.send(requests))

    def send(self, requests: Mapping[int, Message]) -> dict[str, Message]:
        """The requests by their message ids, on their way; a node that left the federation gets no id, and no entry."""
        sent = {}
        for request in requests.values():
            request.metadata.ttl = max(_KEPT_ROUNDS * self._config.federation.round_timeout_s, _KEPT_S)
            sent.update(dict.fromkeys(filter(None, self._grid.push_messages([request])), request))
        if isinstance(self._grid, LocalGrid):
            self._grid.wait(0)  # whose workers begin only when they are looked after
        return sent

    def replies(self, sent: Mapping[str, Message]) -> Iterator[tuple[int, Message]]:
        """Each node's reply as it comes; there is none of one that stays silent. They are matched by what they answer.

        The deadline counts from now. The last look comes after it: a server that was held up finds what has come in the
        meantime. SuperLink lets only the node that was asked answer, and once; Flower's own errors may have another
        sender. It keeps a request for `_KEPT_ROUNDS` deadlines, an hour at least (Flower's default is 12 h): a node
        that comes back later does not work through what it has missed, and what it answers then is not stored.
        """
        timeout_s, waiting = self._config.federation.round_timeout_s, dict(sent)
        has_deadline = not isinstance(self._grid, LocalGrid) or self._grid.has_deadline
        deadline = time.monotonic() + timeout_s if has_deadline else math.inf
        is_last = False
        try:
            while waiting and not is_last:
                is_last = time.monotonic() >= deadline
                patience_s = _LAST_LOOK_S if is_last else self._poll_s
                for reply in self._pulled(waiting, patience_s):
                    answered, sender = reply.metadata.reply_to_message_id, reply.metadata.src_node_id
                    if answered not in waiting:
                        continue
                    node = waiting[answered].metadata.dst_node_id
                    if reply.has_error() or sender == node:
                        del waiting[answered]
                        yield node, reply
                if waiting and not is_last:
                    self._wait(deadline)
        finally:
            if isinstance(self._grid, LocalGrid):
                self._grid.forget(waiting)

    def _wait(self, deadline: float) -> None:
        """Until it is worth looking again."""
        if isinstance(self._grid, LocalGrid):
            self._grid.wait(max(0.0, deadline - time.monotonic()))
        else:
            time.sleep(self._poll_s)

    def _pulled(self, waiting: Mapping[str, Message], patience_s: float) -> Iterable[Message]:
        """The answers that are there, to requests by their message ids."""
        if self._pulls is None:
            return self._grid.pull_messages(waiting.keys())
        return self._pulls.answers(waiting, patience_s)
