"""The pages over HTTP: reading only, GET only, on loopback unless told otherwise."""

import hashlib
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

from fedmd.config import ConfigError
from fedmd.report.files import REPORT
from fedmd.report.html.content import Page
from fedmd.report.html.write import render
from fedmd.watch.folder import Seen, seen_runs
from fedmd.watch.pages import run_page, runs_page

_SHARE = 0.25  # of a core that drawing takes at most, as the runs need the rest
_OLDEST_S = 15.0  # a page that is older is drawn again all the same
_PATIENCE_S = 10  # with whoever connects and says nothing
_LONGEST = 2048  # characters of a request's path


@dataclass(frozen=True)
class Drawn:
    """A page as it was sent, and its ETag."""

    body: bytes
    tag: str


class Pages:
    """The pages of the runs at `path`, drawn again when somebody asks and something may have changed.

    "/" is that of the run, or of all runs; "/run/NAME" of one of several. Nothing else in the folder is reachable but
    the reports. An address is looked up among those of the runs that were found, and never becomes a path.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._lock = Lock()  # figures are drawn one at a time
        self._kept: dict[str, tuple[float, Drawn]] = {}  # until when a page is as good as new
        self._title = "/".join(path.resolve().parts[-2:])

    def page(self, address: str) -> Drawn | None:
        """The page at `address`; None where there is none."""
        with self._lock:
            until, drawn = self._kept.get(address, (0.0, None))
            if drawn is not None and self._clock() < until:
                return drawn
            began = time.thread_time()
            try:
                page = self._draw(address)
            except (OSError, ValueError):  # the run wrote while it was read
                if drawn is None:
                    raise
                return drawn
            if page is None:
                return None
            body = render(page, live=True).encode()
            drawn = Drawn(body, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
            rest = (time.thread_time() - began) * (1 / _SHARE - 1)
            self._kept[address] = (self._clock() + min(rest, _OLDEST_S), drawn)
            return drawn

    def report(self, name: str) -> bytes | None:
        """report.html of everything, or of the run `name`; None where there is none."""
        folders = {run.name: run.folder for run in seen_runs(self._path)} | {"": self._path, ".": self._path}
        try:
            return (folders[name] / REPORT).read_bytes()
        except (KeyError, OSError):
            return None

    def _draw(self, address: str) -> Page | None:
        runs = seen_runs(self._path)
        addresses = {run.name: address_of(run) for run in runs}
        if address == "/":
            return (
                run_page(runs[0], self._title)
                if runs[0].name == "."
                else runs_page(self._path, runs, self._title, addresses)
            )
        found = next((run for run in runs if addresses[run.name] == address), None)
        return None if found is None else run_page(found, f"{self._title}: {found.name}", up="/")


def address_of(run: Seen) -> str:
    """Of a run's own page."""
    return f"/run/{quote(run.name)}"


class PageServer(ThreadingHTTPServer):
    """Serves `pages` at `host`, `port` (0: any free one). Raises ConfigError where that cannot be had."""

    daemon_threads = True

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        self.pages, self.host = pages, host
        try:
            family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self.address_family = family
            super().__init__((str(place[0]), port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigError(f"fedmd watch: {host}:{port} cannot be served ({why}).") from error

    def server_bind(self) -> None:
        """Without the library's question to the DNS what this machine may be called."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, self.server_address[1]

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def is_called(self, host: str) -> bool:
        """Whether a Host header may be meant for this server: no name that somebody else's DNS could point here."""
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ip_address(name)
        except ValueError:
            return name in ("localhost", self.host.lower())
        return True


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "fedmd", ""
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE_S
    HEADERS: ClassVar[dict[str, str]] = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }

    def do_GET(self) -> None:
        """A page, a report, or 304 where the page is as the browser has it."""
        try:
            called = self.server.is_called(self.headers.get("Host", ""))
        except ValueError:
            called = False
        if not called or len(self.path) > _LONGEST:
            return self._answer(
                HTTPStatus.FORBIDDEN, b"This server is not called so here: take its address, or name it by --host.\n"
            )
        try:
            target = urlsplit(self.path)
            if target.path == f"/{REPORT}":
                report = self.server.pages.report(unquote(target.query))
                drawn = None if report is None else Drawn(report, "")
            else:
                drawn = self.server.pages.page(target.path)
        except (ConfigError, OSError, ValueError):
            return self._answer(HTTPStatus.SERVICE_UNAVAILABLE, b"There is nothing to read at this moment.\n")
        if drawn is None:
            return self._answer(HTTPStatus.NOT_FOUND, b"There is no such page.\n")
        if drawn.tag and self.headers.get("If-None-Match") == drawn.tag:
            return self._answer(HTTPStatus.NOT_MODIFIED, None, drawn.tag)
        return self._answer(HTTPStatus.OK, drawn.body, drawn.tag)

    def _answer(self, status: HTTPStatus, body: bytes | None, tag: str = "") -> None:
        self.send_response(status)
        for name, value in self.HEADERS.items():
            plain = name == "Content-Type" and status is not HTTPStatus.OK
            self.send_header(name, "text/plain; charset=utf-8" if plain else value)
        if tag:
            self.send_header("ETag", tag)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body is not None:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a page that updates itself asks all the time."""
