"""The client: it answers with its next batch, and knows nothing of models, defences or attacks.

Which clients a node answers for follows from its place among the nodes (`partition-id` of `num-partitions`), so ten
nodes can stand for ten clients or for a thousand.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmd.flower.attack_mod import collusion
from fedmd.flower.messages import info_reply, read_request, stream_reply
from fedmd.flower.world import world_of

app = ClientApp(mods=[collusion])


@app.query("info")
def info(message: Message, context: Context) -> Message:
    """Say which clients this node answers for."""
    config = world_of(read_request(message).run).config
    nodes = min(int(context.node_config["num-partitions"]), config.federation.node_count)
    place = int(context.node_config["partition-id"])
    clients = range(place, config.federation.clients, nodes) if place < nodes else range(0)
    return Message(info_reply(clients, wants_model=False), reply_to=message)


@app.train("stream")
def stream(message: Message, context: Context) -> Message:
    """Send the asked clients' batches of the asked round."""
    request = read_request(message)
    streams = world_of(request.run).streams
    batches = [streams.batch(client, request.round) for client in request.clients]
    return Message(stream_reply(request.round, batches), reply_to=message)
