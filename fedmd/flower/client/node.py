"""A client on a machine of its own: what it sends is decided there, by the SuperNode's --node-config alone.

Of the server's configuration it uses the batch size, within its own limit; in mode=update also `local` and which of
fedmd's own models it is. It does not load data or import code that the server names; only a node that its owner made
part of a red team goes on to the attack. Samples are sent without PyTorch, because SuperNode starts a new process for
every message.
"""

from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fedmd.config import NodeConfig, RunConfig
from fedmd.data.node_stream import REMEMBERED, next_samples, read_samples
from fedmd.flower.wire import Request, info_reply, read_request, stream_reply, update_reply
from fedmd.types import StreamBatch

app = ClientApp()


@app.query("info")
def info(message: Message, context: Context) -> Message:
    """Say which client this node answers for."""
    node, request = _node(context), read_request(message)
    if node.client >= (clients := RunConfig.parse(request.run).federation.clients):
        raise ValueError(f"this node's client {node.client} is not one of the server's {clients}")
    return _attacked(node, Message(info_reply([node.client], wants_model=False), reply_to=message), message, context)


@app.train("stream")
def stream(message: Message, context: Context) -> Message:
    """Send the next samples of this node's stream."""
    node, request = _node(context), read_request(message)
    session = request.session or str(context.run_id)
    batches = own_batches(node, request, RunConfig.parse(request.run).stream.batch_size, session)
    return _attacked(node, Message(stream_reply(request.round, batches), reply_to=message), message, context)


@app.train("update")
def update(message: Message, context: Context) -> Message:
    """Train on this node's own samples and send what was learned."""
    if not _node(context).red_team:
        return _trained(message, context)
    from fedmd.flower.client.update_mod import update_collusion

    return update_collusion(message, context, _trained)


def bound_to_node(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: where the node's owner named a stream, this module's app answers and no other."""
    return app(message, context) if "stream" in context.node_config else call_next(message, context)


def own_batches(node: NodeConfig, request: Request, batch_size: int, run: str) -> list[StreamBatch]:
    """What the node's client sends in the rounds of `request`; fewer where its stream ends.

    Raises ValueError for a request beyond the node's own limit or for somebody else's samples.
    """
    if request.clients != (node.client,):
        raise ValueError(f"this node speaks for client {node.client} alone")
    if (asked := batch_size * request.batches) > node.max_samples:
        raise ValueError(f"{asked} samples are more than this node's max-samples={node.max_samples}")
    position, batches = Path(node.position).expanduser(), []
    for round in range(request.round, request.round + request.batches):
        samples = next_samples(
            position,
            run,
            round,
            batch_size,
            lambda start, count: read_samples(node, start, count),
            remembered=max(REMEMBERED, 2 * request.batches),
        )
        if samples is not None:
            batches.append(StreamBatch(node.client, round, *samples))
    return batches


def _trained(message: Message, context: Context) -> Message:
    from fedmd.flower.client.node_training import own_updates

    request = read_request(message)
    updates = own_updates(_node(context), request, RunConfig.parse(request.run))
    return Message(update_reply(request.round, updates), reply_to=message)


def _node(context: Context) -> NodeConfig:
    if "stream" not in context.node_config:
        raise ValueError("this node's --node-config names no stream")
    return NodeConfig.parse(dict(context.node_config))


def _attacked(node: NodeConfig, honest: Message, message: Message, context: Context) -> Message:
    """The honest reply, or what becomes of it on a node of the red team."""
    if not node.red_team:
        return honest
    from fedmd.flower.client.attack_mod import collusion

    return collusion(message, context, lambda message, context: honest)
