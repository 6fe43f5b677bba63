"""The client: it answers with its next batch, or with what it learned; of defences and attacks it knows nothing.

Which clients a node answers for follows from its place among the nodes (`partition-id` of `num-partitions`), so ten
nodes can stand for ten clients or for a thousand. Where a node's owner named a stream, `client.node` answers.
"""

import time

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedmd.data.federated import federated_data_of
from fedmd.flower.client.attack_mod import collusion
from fedmd.flower.client.node import bound_to_node
from fedmd.flower.client.update_mod import update_collusion
from fedmd.flower.wire import ClientUpdate, info_reply, read_request, stream_reply, update_reply
from fedmd.flower.wire.model_exchange import fetch_state
from fedmd.training.local import floating, train_client
from fedmd.training.setup import client_model, fix_threads

app = ClientApp(mods=[bound_to_node])


@app.query("info", mods=[collusion])
def info(message: Message, context: Context) -> Message:
    """Say which clients this node answers for; who trains wants the model."""
    config = federated_data_of(read_request(message).run).config
    nodes = min(int(context.node_config["num-partitions"]), config.federation.node_count)
    place = int(context.node_config["partition-id"])
    clients = range(place, config.federation.clients, nodes) if place < nodes else range(0)
    return Message(info_reply(clients, wants_model=config.mode == "update"), reply_to=message)


@app.train("stream", mods=[collusion])
def stream(message: Message, context: Context) -> Message:
    """Send the asked clients' batches of the asked round."""
    request = read_request(message)
    streams = federated_data_of(request.run).streams
    rounds = range(request.round, request.round + request.batches)
    batches = [streams.batch(client, round) for round in rounds for client in request.clients]
    return Message(stream_reply(request.round, batches), reply_to=message)


@app.train("update", mods=[update_collusion])
def update(message: Message, context: Context) -> Message:
    """Train the asked clients' models, one after another in one place, and send what they learned."""
    request = read_request(message)
    data, model, start = federated_data_of(request.run), client_model(request.run), fetch_state(request)
    fix_threads(request.run)
    updates = []
    for client in request.clients:
        began, own = time.perf_counter(), data.local.of(client)
        train_client(
            model, start, own, data.config, client=client, round=request.round, proximal_mu=request.proximal_mu
        )
        arrays = ArrayRecord(floating(model.state_dict()))
        updates.append(ClientUpdate(client, arrays, len(own), time.perf_counter() - began))
    return Message(update_reply(request.round, updates), reply_to=message)
