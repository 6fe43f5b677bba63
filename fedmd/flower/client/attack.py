"""What makes a client malicious: another source of batches, another way to train, in place of its honest one.

For everybody else, and while the attack is not on, both are the honest ones: `attack.fraction=0` is an honest run, bit
for bit. A member acts on the configuration that the server sends.
"""

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

from flwr.app import ArrayRecord, Context
from torch import nn

from fedmd.attacks.base import Situation
from fedmd.attacks.coalition import Coalition, coalition_of
from fedmd.data.federated import federated_data_of
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.model_exchange import fetch_state
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.training.device import Placement
from fedmd.training.setup import client_model, fix_threads
from fedmd.types import StreamBatch

B = TypeVar("B", StreamBatch, StreamBatch | None)


def attacked_batches(
    honest: Callable[[int, int], B], request: Request, coalition: Coalition
) -> Callable[[int, int], B]:
    """`honest(client, round)`, but for the coalition's members while it is active; before, some watch the model."""

    @cache  # one model for all of the request's members
    def net() -> nn.Module:
        return _net(request, fetch=coalition.needs_model)

    def batch(client: int, round: int) -> B:
        own = honest(client, round)
        if own is None or not coalition.includes(client) or not (coalition.is_active(round) or coalition.watches):
            return own
        started = time.perf_counter()
        with Placement.of_client(federated_data_of(request.run).config.runtime).autocast():
            poisoned = coalition.poison(own, net())
        coalition.cache.add_seconds(request.round, time.perf_counter() - started)
        return poisoned

    return batch


def attacked_updates(
    honest: Callable[[int], ClientUpdate], request: Request, coalition: Coalition
) -> Callable[[int], ClientUpdate]:
    """`honest(client)`, but for the coalition's members while it is active: they do not train by themselves."""

    @cache
    def situation() -> Situation:
        net = _net(request, fetch=False)
        return Situation(request.round, net, fetch_state(request), request.proximal_mu)

    def update(client: int) -> ClientUpdate:
        if not coalition.includes(client) or not coalition.is_active(request.round):
            return honest(client)
        started = time.perf_counter()
        arrays = ArrayRecord(coalition.update(client, situation()))
        coalition.cache.add_seconds(request.round, time.perf_counter() - started)
        examples = len(federated_data_of(request.run).local.indices(client))
        return ClientUpdate(client, arrays, examples, 0.0)

    return update


def coalition_for(request: Request, context: Context) -> Coalition:
    """The coalition of the request's run, as this node sees it."""
    return coalition_of(federated_data_of(request.run), shared_folder(request, context))


def shared_folder(request: Request, context: Context) -> Path:
    """The exchange folder of a simulation; on a machine of its own, a colluder works alone in a temporary one."""
    if request.exchange:
        return Path(request.exchange)
    run = request.session if request.session.isalnum() else context.run_id
    return Path(tempfile.gettempdir()) / f"fedmd-coalition-{run}-{context.node_id}"


def _net(request: Request, *, fetch: bool) -> nn.Module:
    """A net to work with; with `fetch` it is the server's model."""
    fix_threads(request.run)
    net = client_model(request.run)
    if fetch:
        net.load_state_dict(fetch_state(request))
    return net
