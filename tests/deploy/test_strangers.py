"""Who gets past SuperLink: Flower's own server and Flower's own node side, in this process, key against key.

What these refuse never reaches fedmd, in whichever mode it runs. Real processes: tests/integration/test_deployment.py.
"""

import datetime
from collections.abc import Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import in_memory_linkstate
from flwr.supercore import date
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.superlink.main import create_app
from flwr.superlink.routers.fleet import node_auth
from flwr.supernode import node_auth_http_interceptor
from flwr.supernode.fleet_http_client import FleetHttpClient

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with")
HEARTBEAT_S = 30.0  # as SuperNode promises


class Key:
    """A node's key pair, and what its SuperNode asks with it."""

    def __init__(self, server: httpx.Client, *, signs: bool = True) -> None:
        private = ec.generate_private_key(ec.SECP384R1())
        self.public = public_key_to_bytes(private.public_key())
        sign = [node_auth_http_interceptor.NodeAuthHttpInterceptor(private, private.public_key())] if signs else []
        self.client = FleetHttpClient("http://superlink", interceptors=sign)
        self.client._client = server

    def activate(self, public: bytes | None = None) -> int:
        """Come online; the node's id."""
        request = ActivateNodeRequest(public_key=public or self.public, heartbeat_interval=HEARTBEAT_S)
        return int(self.client.ActivateNode(request).node_id)

    def beat(self, node: int) -> bool:
        request = SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=HEARTBEAT_S)
        return bool(self.client.SendNodeHeartbeat(request).success)

    def pull(self, node: int) -> object:
        """Ask for the node's messages."""
        return self.client.PullMessages(PullMessagesRequest(node=Node(node_id=node)))

    def leave(self, node: int) -> None:
        self.client.DeactivateNode(DeactivateNodeRequest(node_id=node))


class SuperLink:
    """Flower's server with node authentication, in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from starlette.testclient import TestClient

        monkeypatch.delenv("FLWR_DATABASE", raising=False)
        app = create_app()
        app.state.enable_supernode_auth = True
        self.client = TestClient(app, base_url="http://superlink")
        self._state = app.state.linkstate_factory.state()
        self._patch = monkeypatch

    def register(self, key: Key) -> None:
        """As `flwr supernode register` does."""
        self._state.create_node("owner", "owner", key.public, 0)

    def set_clock(self, seconds: float) -> None:
        """Put the server's clock forward; nodes keep theirs."""
        for module in (in_memory_linkstate, node_auth):
            self._patch.setattr(module, "now", clock(seconds))


def clock(seconds: float) -> Callable[[], datetime.datetime]:
    """Flower's `now`, so many seconds ahead."""
    real = date.now
    return lambda: real() + datetime.timedelta(seconds=seconds)


@pytest.fixture
def superlink(monkeypatch: pytest.MonkeyPatch) -> SuperLink:
    return SuperLink(monkeypatch)


def refused(ask: Callable[[], object], status: int) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        ask()
    assert error.value.response.status_code == status


NO_KEY, NOT_NOW = 401, 412  # the request is nobody's; the key's node cannot come online


def test_without_a_key_or_with_one_that_is_not_registered(superlink: SuperLink) -> None:
    registered, other = Key(superlink.client), Key(superlink.client)
    superlink.register(registered)
    refused(Key(superlink.client, signs=False).activate, NO_KEY)
    refused(other.activate, NOT_NOW)
    assert registered.activate()


def test_nobody_speaks_in_anothers_name(superlink: SuperLink) -> None:
    """A registered key asks to come online, to be heard and to be told as another one's node."""
    one, other = Key(superlink.client), Key(superlink.client)
    for key in (one, other):
        superlink.register(key)
    node = one.activate()
    for ask in (lambda: other.activate(one.public), lambda: other.beat(node), lambda: other.pull(node)):
        refused(ask, NO_KEY)
    refused(lambda: other.leave(node), NO_KEY)
    assert one.beat(node) and one.pull(node)


def test_the_twin_of_a_live_key_stays_outside(superlink: SuperLink) -> None:
    key = Key(superlink.client)
    superlink.register(key)
    node = key.activate()
    refused(key.activate, NOT_NOW)  # a second SuperNode with the same key
    assert key.beat(node) and key.pull(node)
    key.leave(node)
    assert key.activate() == node  # whoever comes after it has left is the same node


def test_a_node_that_died_is_let_in_again_once_its_heartbeats_are_missed(
    superlink: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, it did not say goodbye: for two heartbeats its own successor is the twin of a live key."""
    key = Key(superlink.client)
    superlink.register(key)
    node = key.activate()
    for seconds, let_in in ((50, False), (70, True)):
        superlink.set_clock(seconds)
        if let_in:
            assert key.activate() == node
        else:
            refused(key.activate, NOT_NOW)


def test_a_node_whose_network_was_cut_goes_on_with_its_next_heartbeat(superlink: SuperLink) -> None:
    key = Key(superlink.client)
    superlink.register(key)
    node = key.activate()
    superlink.set_clock(200)  # long after it counts as gone
    assert key.beat(node) and key.pull(node)
    refused(key.activate, NOT_NOW)  # it is online: whoever comes in its name is a twin again


@pytest.mark.parametrize(
    ("ahead", "let_in"), [(-400, False), (-290, True), (-1, True), (0, True), (3, True), (20, False), (3600, False)]
)
def test_a_nodes_clock(ahead: float, let_in: bool, superlink: SuperLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """It signs the time: five minutes behind the server's will do, and five seconds ahead."""
    key = Key(superlink.client)
    superlink.register(key)
    monkeypatch.setattr(node_auth_http_interceptor, "now", clock(ahead))
    if let_in:
        assert key.activate()
    else:
        refused(key.activate, NO_KEY)
