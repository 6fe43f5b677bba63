"""What makes a client malicious: a Flower mod round the honest ClientApp.

It subscribes the node to the model, and while the attack is on it replaces the batches of its malicious clients by
the coalition's. For everybody else it is transparent: `attack.fraction=0` is an honest run, bit for bit.
"""

import tempfile
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedmd.attacks.coalition import Coalition
from fedmd.attacks.shared_cache import Blackboard
from fedmd.data.federated import FederatedData, federated_data_of
from fedmd.flower.wire import (
    INFO,
    Request,
    info_reply,
    read_info,
    read_own_batches,
    read_request,
    stream_reply,
)
from fedmd.flower.wire.model_exchange import fetch_model
from fedmd.training.setup import client_model, fix_threads


def collusion(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: honest for honest clients, the coalition's voice for its members."""
    reply = call_next(message, context)
    request = read_request(message)
    data = federated_data_of(request.run)
    if data.config.mode == "update":  # an info query: there everybody wants the model
        return reply
    coalition = coalition_of(data, meeting_place(request, context))
    if message.metadata.message_type == INFO:
        clients, _ = read_info(reply, data.config.federation.clients)
        wants_model = coalition.needs_model and any(client in coalition.members for client in clients)
        return Message(info_reply(clients, wants_model=wants_model), reply_to=message)
    rounds = range(request.round, request.round + request.batches)
    if not any(map(coalition.is_active, rounds)) or not set(request.clients) & set(coalition.members):
        return reply
    started = time.perf_counter()
    fix_threads(request.run)
    model = client_model(request.run)
    if coalition.needs_model:
        fetch_model(request, model)
    batches = [
        coalition.poison(batch, model) if batch.client in coalition.members else batch
        for batch in read_own_batches(reply)
    ]
    coalition.blackboard.add_seconds(request.round, time.perf_counter() - started)
    return Message(stream_reply(request.round, batches), reply_to=message)


def coalition_of(data: FederatedData, folder: Path) -> Coalition:
    """The coalition of a run, meeting in `folder`."""
    own_data = data.images.take(data.split.attacker)
    return Coalition(data.config, data.streams, own_data, Blackboard(folder))


def meeting_place(request: Request, context: Context) -> Path:
    """The shared folder of a simulation; on a machine of its own, a colluder works alone in a temporary one."""
    if request.exchange:
        return Path(request.exchange)
    run = request.session if request.session.isalnum() else context.run_id
    return Path(tempfile.gettempdir()) / f"fedmd-coalition-{run}-{context.node_id}"
