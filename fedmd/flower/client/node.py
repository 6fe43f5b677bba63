"""A client on a machine of its own: what it sends is decided there, by the SuperNode's --node-config alone.

Of the server's configuration it uses the batch size, within its own limit; in mode=update also `local` and which of
fedmd's own models it is. It never sees a path, an address or an import that the server names (`allowed.py`). Only a
node that its owner made part of a red team goes on to the attack, a built-in one or one of a package that is installed
there, with data that need no path. Samples are sent without PyTorch, because SuperNode starts a new process for every
message.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context

from fedmd.config import NodeConfig
from fedmd.data.node_stream import REMEMBERED, next_samples, read_samples
from fedmd.flower.client.allowed import allowed
from fedmd.flower.client.handlers import make_client_app
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.registry import resolving
from fedmd.types import StreamBatch

if TYPE_CHECKING:  # PyTorch, where a node attacks
    from fedmd.attacks.coalition import Coalition


class NodeClient:
    """See `Client`. Raises ValueError for a request beyond the node's own limits or about somebody else's client."""

    def __init__(self, request: Request, context: Context) -> None:
        if "stream" not in context.node_config:
            raise ValueError("this node's --node-config names no stream")
        self._node = NodeConfig.parse(dict(context.node_config))
        self._request, self._config = allowed(request)
        self._context = context

    @property
    def clients(self) -> Sequence[int]:
        """The one that the node's owner named."""
        if self._node.client >= (known := self._config.federation.clients):
            raise ValueError(f"this node's client {self._node.client} is not one of the server's {known}")
        return (self._node.client,)

    @property
    def wants_model(self) -> bool:
        """Only to attack with it; for training it comes unasked."""
        if not self._node.red_team or self._config.mode == "update":
            return False
        coalition = self._coalition()
        return coalition.needs_model and coalition.includes(self._node.client)

    def batches(self) -> list[StreamBatch]:
        """The next samples of the node's stream; fewer batches where it ends."""
        request, node, size = self._request, self._node, self._config.stream.batch_size
        if request.clients != (node.client,):
            raise ValueError(f"this node speaks for client {node.client} alone")
        if (asked := size * request.batches) > node.max_samples:
            raise ValueError(f"{asked} samples are more than this node's max-samples={node.max_samples}")
        batch: Callable[[int, int], StreamBatch | None] = self._own_batch
        if node.red_team:
            from fedmd.flower.client.attack import attacked_batches

            batch = attacked_batches(batch, request, self._coalition())
        rounds = range(request.round, request.round + request.batches)
        return [sent for round in rounds if (sent := batch(node.client, round)) is not None]

    def updates(self) -> list[ClientUpdate]:
        """What the node learns from its own samples, or nothing where it is not asked."""
        from fedmd.flower.client.node_training import own_update  # PyTorch, where a node trains

        update: Callable[[int], ClientUpdate] = partial(own_update, self._node, self._request, self._config)
        if self._node.red_team:
            from fedmd.flower.client.attack import attacked_updates

            update = attacked_updates(update, self._request, self._coalition())
        if foreign := set(self._request.clients) - {self._node.client}:
            raise ValueError(f"this node speaks for client {self._node.client} alone, not for {sorted(foreign)}")
        return [update(client) for client in self._request.clients]

    def _coalition(self) -> "Coalition":
        """Of the server's configuration, whose factories are never imported. Raises ConfigError for attack=custom."""
        from fedmd.flower.client.attack import coalition_for

        with resolving("installed"):
            return coalition_for(self._request, self._context)

    def _own_batch(self, client: int, round: int) -> StreamBatch | None:
        samples = next_samples(
            Path(self._node.position).expanduser(),
            self._request.session or str(self._context.run_id),
            round,
            self._config.stream.batch_size,
            lambda start, count: read_samples(self._node, start, count),
            remembered=max(REMEMBERED, 2 * self._request.batches),
        )
        return None if samples is None else StreamBatch(client, round, *samples)


app = make_client_app(NodeClient)
