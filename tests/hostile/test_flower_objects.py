"""Flower's own grid over HTTP before a SuperLink of a few lines: answers spoilt below what it decodes, or half sent."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse, PushAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.superlink.grid import HttpGrid, http_grid
from httpx import ConnectError

from fedmd.config import RunConfig
from fedmd.flower.server import nodes as nodes_module
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, batches_reply
from fedmd.types import StreamBatch
from tests.flower.wire.examples import asked, read_round
from tests.inline import Clock

NODES = (101, 102, 103)
Contents = dict[str, bytes]  # what a node uploaded: deflated objects by id


class SuperLink:
    """Three nodes that have answered at once; `spoil` is what node 102 does to the objects of its answer."""

    def __init__(self, spoil: Callable[[Contents], None]) -> None:
        self._spoil = spoil
        self._replies: dict[str, Message] = {}
        self._objects: Contents = {}

    def PushMessages(self, request: Any) -> Any:
        for proto in request.messages_list:
            asked = message_from_proto(proto)
            client = asked.metadata.dst_node_id - NODES[0]
            batch = StreamBatch(client, 0, np.full((4, 1, 8, 8), client, np.uint8), np.full(4, client))
            reply = Message(batches_reply(0, [batch]), reply_to=asked)
            objects = {key: each.deflate() for key, each in get_all_nested_objects(reply).items()}
            if client == 1:
                self._spoil(objects)
            self._objects |= objects
            self._replies[asked.metadata.message_id] = reply
        return PushAppMessagesResponse(message_ids=[p.metadata.message_id for p in request.messages_list])

    def PushObject(self, request: Any) -> Any:
        raise AssertionError("nobody asked for it")

    def PullMessages(self, request: Any) -> Any:
        found = [self._replies.pop(key) for key in request.message_ids if key in self._replies]  # once, as SuperLink
        protos = [message_to_proto(reply) for reply in found]
        for proto, reply in zip(protos, found, strict=True):
            proto.metadata.message_id = reply.object_id
        return PullAppMessagesResponse(messages_list=protos, message_object_trees=list(map(get_object_tree, found)))

    def PullObject(self, request: Any) -> Any:
        content = self._objects[request.object_id]
        return PullObjectResponse(object_found=True, object_available=True, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> Any:
        return ConfirmMessageReceivedResponse()


def changed(kind: bytes, change: Callable[[bytes], bytes]) -> Callable[[Contents], None]:
    """Spoil every uploaded object of a kind."""

    def spoil(contents: Contents) -> None:
        for key in [key for key, content in contents.items() if content.startswith(kind + b" ")]:
            contents[key] = change(contents[key])

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        changed(b"RecordDict", lambda content: content[:-1] + b"!"),
        changed(b"ArrayRecord", lambda content: content.replace(b"images", b"im\xffges")),
        changed(b"ArrayRecord", lambda content: content.split(b"\x00")[0] + b"\x00" + b"[" * 100_000),
        changed(b"Array", lambda content: content.replace(b"arraychunk_ids", b"arraychunk_id_")),
        changed(b"ConfigRecord", lambda content: content + b"\xff\xff"),
        changed(b"Message", lambda content: b"no header"),
        changed(b"Message", lambda content: content.replace(b"Message", b"Massage")),
        changed(b"ArrayChunk", lambda content: b""),
        changed(b"RecordDict", lambda content: content.replace(b"RecordDict", b"Array")),
    ],
)
def test_a_spoilt_upload_costs_its_own_node_alone(
    make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    monkeypatch.setattr(nodes_module, "time", Clock())
    config = make_config({"federation": {"clients": 3}})
    _, replies = ask(Nodes(grid_to(SuperLink(spoil)), config, ""))
    heard = {node: read_round(replies[node], 0, [node - 101], ExpectedBatch((1, 8, 8), 10, 4)) for node in NODES}
    assert [len(batches) for batches, _ in heard.values()] == [1, 0, 1]
    (rejection,) = heard[102][1]
    assert "its answer cannot be decoded" in rejection.reason


def grid_to(link: Any) -> HttpGrid:
    grid = HttpGrid(token="nobody asks for it")
    grid._run, grid._client = SimpleNamespace(run_id=1), link  # type: ignore[assignment]
    return grid


def ask(nodes: Nodes) -> tuple[dict[int, Message], dict[int, Message]]:
    """A round's requests and replies."""
    requests = {node: Message(asked("{}", 0, [node - 101]), node, STREAM) for node in NODES}
    return requests, dict(nodes.ask(requests))


# -- answers of which only the header comes ---------------------------------------------------------------------------


class HalfSent(SuperLink):
    """Of node 102's answers there is the header, and nothing behind it until `uploaded` is set."""

    def __init__(self) -> None:
        self.uploaded = threading.Event()
        self.pulling_102: list[threading.Thread] = []
        self._missing: set[str] = set()
        super().__init__(self._keep)

    def _keep(self, contents: Contents) -> None:
        self._missing |= set(contents)

    def PullMessages(self, request: Any) -> Any:
        response = super().PullMessages(request)
        if any(proto.metadata.src_node_id == 102 for proto in response.messages_list):
            self.pulling_102.append(threading.current_thread())
        return response

    def PullObject(self, request: Any) -> Any:
        if request.object_id in self._missing and not self.uploaded.is_set():
            return PullObjectResponse(object_found=True, object_available=False)
        return super().PullObject(request)


@pytest.fixture
def half_sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[HalfSent]:
    link = HalfSent()
    monkeypatch.setitem(http_grid.pull_objects.__kwdefaults__, "initial_backoff", 0.01)
    monkeypatch.setitem(http_grid.pull_objects.__kwdefaults__, "backoff_cap", 0.01)
    monkeypatch.setitem(http_grid.pull_objects.__kwdefaults__, "max_tries_per_object", None)
    monkeypatch.setattr(nodes_module, "time", Clock())
    yield link
    link.uploaded.set()  # or the threads that ask for it would outlive the test


def test_a_header_without_its_objects_holds_up_nobody(make_config: Callable[..., RunConfig], half_sent: Any) -> None:
    """Flower asks for the objects for as long as they do not come: rounds end all the same, with who is left."""
    nodes = Nodes(grid_to(half_sent), make_config({"federation": {"clients": 3, "round_timeout_s": 1.0}}), "")
    for _ in range(3):
        requests, replies = ask(nodes)
        assert set(replies) == {101, 103}
        assert all(replies[node].metadata.reply_to_message_id == requests[node].metadata.message_id for node in replies)
    (stalled,) = half_sent.pulling_102  # one thread, however many rounds the node does this in
    half_sent.uploaded.set()
    stalled.join()
    requests, replies = ask(nodes)
    assert set(replies) == set(NODES) and len(half_sent.pulling_102) == 2
    for node in NODES:  # what came too late is not taken for the answer to another request
        assert replies[node].metadata.reply_to_message_id == requests[node].metadata.message_id


def test_a_superlink_that_cannot_be_used_ends_the_round_with_an_error(
    make_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(SuperLink):
        def PullMessages(self, request: Any) -> Any:
            raise ConnectError("nobody there")

    monkeypatch.setattr(nodes_module, "time", Clock())
    with pytest.raises(ConnectError):
        ask(Nodes(grid_to(Gone(lambda contents: None)), make_config({"federation": {"clients": 3}}), ""))
