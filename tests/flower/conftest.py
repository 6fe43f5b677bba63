"""Flower messages without Flower's processes: an identity to send them under, and the way over the wire."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.supercore.task_identity import TaskIdentity
from torch import Tensor

from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.flower.client.app import app
from fedmd.flower.server import nodes
from fedmd.flower.server.update_rounds import UpdateRounds
from fedmd.flower.wire import STREAM, UPDATE, read_own_updates, stream_reply, stream_request
from fedmd.flower.wire.model_exchange import ByReference, Exchange, InMessage
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import RoundReport, StreamBatch
from tests.hostile.wire import Clock

ROUND = 5
SMALL_UPDATES: dict[str, Any] = {
    "mode": "update",
    "model": {"name": "cnn", "width": 2},
    "local": {"epochs": 1, "batch_size": 8, "lr": 0.1, "samples": 24},
    "stream.clean_rounds": 1,
    "stream.accumulative_rounds": 1,
    "stream.recovery_rounds": 0,
    "defense": {"name": "none"},
}


@pytest.fixture(autouse=True, scope="session")
def identity() -> Iterator[None]:
    """Flower sets this when it starts a ServerApp."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    yield
    TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Deadlines pass by polling, however slow the machine is."""
    clock = Clock()
    monkeypatch.setattr(nodes, "time", clock)
    return clock


def over_the_wire(message: Message) -> Message:
    """Through protocol buffers and bytes, as between machines."""
    return message_from_proto(ProtoMessage.FromString(message_to_proto(message).SerializeToString()))


def batch(client: int, n: int = 3) -> StreamBatch:
    """`n` images of 4x4 pixels for client `client`."""
    rng = np.random.default_rng(client)
    images = rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8)
    return StreamBatch(client, ROUND, images, rng.integers(0, 10, n))


def reply(content: RecordDict | Error) -> Message:
    """What the server receives when a node answers a request for clients 0 and 1 with `content`."""
    request = Message(stream_request("{}", ROUND, [0, 1], ""), 1, STREAM)
    return over_the_wire(Message(content, reply_to=request))


def honest(*clients: int) -> RecordDict:
    """The proper answer for `clients`."""
    return stream_reply(ROUND, [batch(client) for client in clients])


@pytest.fixture(scope="session")
def wire() -> SimpleNamespace:
    """The helpers above, for the test modules of this folder."""
    return SimpleNamespace(over_the_wire=over_the_wire, batch=batch, reply=reply, honest=honest)


@pytest.fixture(scope="session")
def small_updates() -> dict[str, Any]:
    """The settings of `run`'s federations, before changes."""
    return SMALL_UPDATES


class InProcess:
    """Nodes that call the client app at once; `spoil[client]` may change what that client sends.

    Of the `mute` nodes no update ever comes.
    """

    def __init__(
        self, nodes: int, wire: SimpleNamespace, spoil: dict[int, Callable[[RecordDict], None]], mute: Sequence[int]
    ) -> None:
        self._nodes, self._wire, self._spoil, self._mute = nodes, wire, spoil, mute
        self._numbers = itertools.count()
        self._replies: list[Message] = []

    def get_node_ids(self) -> list[int]:
        return [100 + place for place in range(self._nodes)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"request-{next(self._numbers)}"
            place = message.metadata.dst_node_id - 100
            config = {"partition-id": place, "num-partitions": self._nodes}
            reply = app(self._wire.over_the_wire(message), Context(7, place, config, RecordDict(), {}))
            if message.metadata.message_type == UPDATE:
                for client in [update.client for update in read_own_updates(reply)]:
                    self._spoil.get(client, lambda content: None)(reply.content)
            if message.metadata.message_type != UPDATE or place not in self._mute:
                self._replies.insert(0, self._wire.over_the_wire(reply))  # the last answer comes first
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, ids: Iterable[str]) -> list[Message]:
        pulled, self._replies = self._replies, []
        return pulled


@pytest.fixture(scope="session")
def in_process() -> type[InProcess]:
    """For tests that build their federation themselves."""
    return InProcess


@pytest.fixture
def run(
    make_config: Callable[..., RunConfig], wire: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """`run(changes)`: the reports of a federation of mode=update and the state it ends with.

    Its folder is `tmp_path`/0, then 1, ...; `watch` is told every report when its round ends.
    """
    numbers = itertools.count()

    def federate(
        changes: dict[str, Any] | None = None,
        nodes: int = 2,
        spoil: dict[int, Callable[[RecordDict], None]] | None = None,
        by_reference: bool = False,
        watch: Callable[[RoundReport], None] = lambda report: None,
        mute: Sequence[int] = (),
    ) -> tuple[list[RoundReport], dict[str, Tensor]]:
        config = make_config({**SMALL_UPDATES, "federation": {"clients": 5, "nodes": nodes}, **(changes or {})})
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(folder))
        data = load_federated_data(config)
        trained = burn_in(config, data.images, data.split, placement=Placement(), cache_dir=tmp_path / "cache")
        exchange: Exchange = ByReference(folder) if by_reference else InMessage()
        grid: Any = InProcess(nodes, wire, spoil or {}, mute)
        rounds = UpdateRounds(grid, data, trained, Placement(), exchange, folder)
        reports: list[RoundReport] = []

        def tell(report: RoundReport) -> None:
            reports.append(report)
            watch(report)

        rounds.run(tell, folder)
        return reports, {key: tensor.clone() for key, tensor in rounds.server.model.state_dict().items()}

    return federate
