"""Clients whose data a simulation makes up from the configuration; some of them are malicious."""

import time
from collections.abc import Sequence

from flwr.app import Context

from fedmd.data.federated import federated_data_of
from fedmd.flower.client.attack import attacked_batches, attacked_updates, coalition_for
from fedmd.flower.wire.arrays import views
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.model_exchange import fetch_state
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.training.device import flushing_denormals
from fedmd.training.local import take_state, train_client
from fedmd.training.setup import client_model, fix_threads
from fedmd.types import StreamBatch


class SimulatedClient:
    """See `Client`. Which clients it answers for follows from the node's place (`partition-id` of `num-partitions`).

    So ten nodes can stand for ten clients or for a thousand.
    """

    def __init__(self, request: Request, context: Context) -> None:
        self._request = request
        self._context = context
        self._data = federated_data_of(request.run)
        self._coalition = coalition_for(request, context)

    @property
    def clients(self) -> Sequence[int]:
        """Every n-th one, n the number of nodes."""
        federation, config = self._data.config.federation, self._context.node_config
        nodes, place = min(int(config["num-partitions"]), federation.node_count), int(config["partition-id"])
        return range(place, federation.clients, nodes) if place < nodes else range(0)

    @property
    def wants_model(self) -> bool:
        """Who trains wants it, and an attacker whose attack looks at it."""
        has_members = any(map(self._coalition.includes, self.clients))
        return self._data.config.mode == "update" or (self._coalition.needs_model and has_members)

    @flushing_denormals()
    def batches(self) -> list[StreamBatch]:
        """The asked clients' batches of the asked rounds, those of malicious ones poisoned."""
        request = self._request
        batch = attacked_batches(self._data.streams.batch, request, self._coalition)
        rounds = range(request.round, request.round + request.batches)
        return [batch(client, round) for round in rounds for client in request.clients]

    @flushing_denormals()
    def updates(self) -> list[ClientUpdate]:
        """What the asked clients learn, one after another in one place."""
        request, data = self._request, self._data
        fix_threads(request.run)
        net, start = client_model(request.run), fetch_state(request)

        def train(client: int) -> ClientUpdate:
            began, own = time.perf_counter(), data.local.of(client)
            train_client(
                net, start, own, data.config, client=client, round=request.round, proximal_mu=request.proximal_mu
            )
            arrays = views(take_state(net))
            return ClientUpdate(client, arrays, len(own), time.perf_counter() - began)

        update = attacked_updates(train, request, self._coalition)
        return [update(client) for client in request.clients]
