"""The three questions a server asks, and the reply to each: whose client answers is somebody else's business.

Without PyTorch, as SuperNode starts a new process for every message.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedmd.flower.wire.header import INFO, Request, info_reply, read_request
from fedmd.flower.wire.samples import STREAM, batches_reply
from fedmd.flower.wire.updates import UPDATE, ClientUpdate, updates_reply
from fedmd.types import StreamBatch


class Client(Protocol):
    """The clients that a node answers for, in one message. `wants_model`: it must be sent the server's model."""

    @property
    def clients(self) -> Sequence[int]:
        """Their ids."""

    @property
    def wants_model(self) -> bool:
        """Whether the model is to come with a request for samples."""

    def batches(self) -> list[StreamBatch]:
        """What the asked clients send in the asked rounds."""

    def updates(self) -> list[ClientUpdate]:
        """What the asked clients learn in the asked round."""


def make_client_app(client_for: Callable[[Request, Context], Client]) -> ClientApp:
    """An app whose node answers as the client that `client_for` makes of a request."""
    app = ClientApp()

    @app.query(INFO.partition(".")[2])
    def info(message: Message, context: Context) -> Message:
        client = client_for(read_request(message), context)
        return Message(info_reply(client.clients, wants_model=client.wants_model), reply_to=message)

    @app.train(STREAM.partition(".")[2])
    def stream(message: Message, context: Context) -> Message:
        request = read_request(message)
        return Message(batches_reply(request.round, client_for(request, context).batches()), reply_to=message)

    @app.train(UPDATE.partition(".")[2])
    def update(message: Message, context: Context) -> Message:
        request = read_request(message)
        return Message(updates_reply(request.round, client_for(request, context).updates()), reply_to=message)

    return app
