"""The ClientApp of `flwr run` and of a simulation.

Where a node's owner named a stream, it is that node's own client that answers (`node.py`), and a simulated one
(`simulated.py`) everywhere else.
"""

from flwr.app import Context

from fedmd.flower.client.handlers import Client, make_client_app
from fedmd.flower.client.node import NodeClient
from fedmd.flower.client.simulated import SimulatedClient
from fedmd.flower.wire.header import Request


def client_for(request: Request, context: Context) -> Client:
    """Who answers `request`."""
    return (NodeClient if "stream" in context.node_config else SimulatedClient)(request, context)


app = make_client_app(client_for)
