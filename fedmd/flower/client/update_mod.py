"""What makes a client malicious in mode=update: a Flower mod round the honest ClientApp.

While the attack is on, its malicious clients do not train by themselves: the coalition makes their updates. For
everybody else it is transparent.
"""

import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable

from fedmd.attacks.shared_cache import Blackboard
from fedmd.attacks.update_coalition import Situation, UpdateCoalition
from fedmd.data.federated import FederatedData, federated_data_of
from fedmd.flower.client.attack_mod import meeting_place
from fedmd.flower.wire import ClientUpdate, narrow, read_own_updates, read_request, update_reply
from fedmd.flower.wire.model_exchange import fetch_state
from fedmd.training.setup import client_model, fix_threads


def update_collusion(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: honest for honest clients, the coalition's voice for its members."""
    request = read_request(message)
    data = federated_data_of(request.run)
    coalition = update_coalition_of(data, meeting_place(request, context))
    mine = [client for client in request.clients if client in coalition.members]
    if not mine or not coalition.is_active(request.round):
        return call_next(message, context)
    narrow(message, [client for client in request.clients if client not in mine])
    updates = read_own_updates(call_next(message, context))
    started = time.perf_counter()
    fix_threads(request.run)
    situation = Situation(request.round, client_model(request.run), fetch_state(request), request.proximal_mu)
    for client in mine:
        arrays = ArrayRecord(coalition.update(client, situation))
        updates.append(ClientUpdate(client, arrays, len(data.local.indices(client)), 0.0))
    coalition.blackboard.add_seconds(request.round, time.perf_counter() - started)
    return Message(update_reply(request.round, sorted(updates, key=lambda update: update.client)), reply_to=message)


def update_coalition_of(data: FederatedData, folder: Path) -> UpdateCoalition:
    """The coalition of a run, meeting in `folder`."""
    own_data = data.images.take(data.split.attacker)
    return UpdateCoalition(data.config, data.local, own_data, Blackboard(folder))
