"""The generated nginx.conf in a real nginx, before a stand-in for SuperLink that writes down what reaches it."""

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fedmd.deploy.federation import Deployment, free_port, has_proxy
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes

pytestmark = pytest.mark.skipif(not has_proxy(), reason="nginx is not installed")
MEGABYTE = 2**20


class Upstream(ThreadingHTTPServer):
    """Says yes to everything, over TLS on loopback, and keeps (path, headers, length of the body)."""

    def __init__(self, port: int, certificates: Path) -> None:
        self.seen: list[tuple[str, dict[str, str], int]] = []
        super().__init__(("127.0.0.1", port), Yes)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "superlink.pem", certificates / "superlink.key")
        self.socket = context.wrap_socket(self.socket, server_side=True)


class Yes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert isinstance(self.server, Upstream)
        self.server.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, len(body)))
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"yes")

    do_GET = do_PUT = do_DELETE = do_POST

    def log_message(self, format: str, *values: object) -> None:
        pass


class Public:
    """Raw bytes to the proxy's port, over TLS."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.folder / "certificates/ca.pem"))
        plain = socket.create_connection((self.plan.host, self.plan.port), timeout=10)
        return context.wrap_socket(plain, server_hostname=self.plan.host)

    def status(self, method: str, path: str, *headers: str, body: bytes = b"x") -> int:
        lines = [f"{method} {path} HTTP/1.1", "Host: here", "Connection: close", *headers]
        if not any(header.lower().startswith(("content-length", "transfer-encoding")) for header in headers):
            lines.append(f"Content-Length: {len(body)}")
        with self.connect() as connection:
            connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
            with contextlib.suppress(OSError):  # refused by its head alone
                connection.sendall(body)
            answer = connection.makefile("rb").readline()
        return int(answer.split()[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxy") / "federation"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(port=free_port(), control_port=free_port(), nodes=1)


@pytest.fixture(scope="module")
def upstream(folder: Path, plan: Plan) -> Iterator[Upstream]:
    """The folder with its certificates, and the stand-in on SuperLink's port."""
    init_folder(folder, plan)
    subprocess.run([sys.executable, folder / "certificates.py"], check=True, capture_output=True)
    with Upstream(plan.control_port, folder / "certificates") as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def public(folder: Path, plan: Plan, upstream: Upstream) -> Iterator[Public]:
    """nginx, started by the folder's own script."""
    with Processes(folder / "logs", {}) as processes:
        Deployment(folder, plan, processes).start_proxy()
        yield Public(plan, folder)
    assert processes.left() == []


@pytest.fixture(autouse=True)
def forget(upstream: Upstream) -> None:
    upstream.seen.clear()


def test_nginx_finds_nothing_wrong(folder: Path, public: Public) -> None:
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    command = [nginx, "-t", "-q", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr", "-g", "user root;"]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr


def test_a_nodes_request_passes_with_its_signature_and_its_own_address(public: Public, upstream: Upstream) -> None:
    signed = ["flwr-public-key: key", "flwr-signature: signature", "flwr-timestamp: now", "X-Forwarded-For: 1.2.3.4"]
    assert public.status("POST", "/v1/fleet/push-object", *signed, body=bytes(6 * MEGABYTE)) == 200
    ((path, headers, length),) = upstream.seen
    assert (path, length) == ("/v1/fleet/push-object", 6 * MEGABYTE)
    assert (headers["flwr-public-key"], headers["flwr-signature"]) == ("key", "signature")
    assert (headers["flwr-timestamp"], headers["x-forwarded-for"]) == ("now", "127.0.0.1")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/fleet/../control/list-nodes"),
        ("POST", "/v1/fleet/%2e%2e/control/list-nodes"),
        ("POST", "/v1/fleet/..%2fcontrol%2flist-nodes"),
        ("POST", "/v1/fleet/x/%2e%2e/../control/list-nodes"),
        ("POST", "/v1/fleet//control/list-nodes"),
        ("POST", "//v1/control/list-nodes"),
        ("POST", "https://127.0.0.1/v1/control/list-nodes"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleet"),
        ("POST", "/v1/fleet/pull-messages/more"),
        ("POST", "/v1/fleet/pull-messages%0d%0aX:%20y"),
        ("POST", "/v1/fleet/pull-messages%00"),
        ("POST", "/V1/FLEET/pull-messages"),
        ("POST", "/"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
        ("GET", "/v1/fleet/pull-messages"),
        ("PUT", "/v1/fleet/pull-messages"),
        ("CONNECT", "127.0.0.1:22"),
    ],
)
def test_everything_else_is_refused_before_superlink_hears_of_it(
    public: Public, upstream: Upstream, method: str, path: str
) -> None:
    assert public.status(method, path) in (400, 403, 405)
    assert upstream.seen == []


def test_detours_arrive_as_what_was_let_through(public: Public, upstream: Upstream) -> None:
    public.status("POST", "/v1/control/../fleet/pull-messages?path=/v1/control/start-run")
    assert [path for path, headers, length in upstream.seen] == ["/v1/fleet/pull-messages"]


@pytest.mark.parametrize(
    "header",
    ["X-Original-URL: /v1/control/list-nodes", "X-Rewrite-URL: /v1/control/list-nodes", "Upgrade: h2c"],
)
def test_no_header_leads_elsewhere(public: Public, upstream: Upstream, header: str) -> None:
    public.status("POST", "/v1/fleet/pull-messages", header)
    ((path, headers, _),) = upstream.seen
    assert path == "/v1/fleet/pull-messages" and "upgrade" not in headers


def test_a_request_within_a_request_is_refused(public: Public, upstream: Upstream) -> None:
    smuggled = b"0\r\n\r\nPOST /v1/control/list-nodes HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n"
    lengths = [f"Content-Length: {len(smuggled)}", "Transfer-Encoding: chunked"]
    public.status("POST", "/v1/fleet/pull-messages", *lengths, body=smuggled)
    assert not [path for path, headers, length in upstream.seen if "control" in path]


def test_what_is_too_large_or_unfinished_does_not_reach_superlink(public: Public, upstream: Upstream) -> None:
    assert public.status("POST", "/v1/fleet/push-object", body=bytes(17 * MEGABYTE)) == 413
    with public.connect() as connection:
        connection.sendall(b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: here\r\nContent-Length: 1000\r\n\r\nx")
        assert public.status("POST", "/v1/fleet/pull-messages") == 200  # another's goes through meanwhile
    assert [path for path, headers, length in upstream.seen] == ["/v1/fleet/pull-messages"]


def test_old_tls_is_refused(public: Public) -> None:
    context = ssl.create_default_context(cafile=str(public.folder / "certificates/ca.pem"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    plain = socket.create_connection((public.plan.host, public.plan.port), timeout=10)
    with plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname=public.plan.host)
