"""The pages over HTTP: what is on them, and what the server does not answer."""

import http.client
import json
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread

import pytest

from fedmd.cli.main import main
from fedmd.watch.serve import Pages, PageServer
from tests.watch.conftest import CONFIG, HOSTILE, Writing


class Clock:
    """Moves when it is told."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def served(path: Path, clock: Clock | None = None) -> Iterator[PageServer]:
    with PageServer("127.0.0.1", 0, Pages(path, clock or Clock())) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(server: PageServer, target: str = "/", method: str = "GET", **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and body; `Host=...` is as given."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)) as connection:
        connection.putrequest(method, target, skip_host=True)
        for name, value in ({"Host": f"127.0.0.1:{server.server_port}"} | headers).items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_a_run_that_is_being_written(writing: Writing) -> None:
    clock = Clock()
    with writing.alive(), served(writing.folder, clock) as server:
        status, headers, page = ask(server)
        assert status == 200 and headers["ETag"]
        for word in ("3 of 4 rounds, trigger", "60.0 %", "since round 1", "0.75 s a round", "The run goes on"):
            assert word in page, word
        assert HOSTILE not in page and "&lt;script&gt;document.title" in page  # the reason of a refusal
        assert page.count('<svg class="plot"') == 5  # accuracy, scores, clients, phases, seconds
        assert "connect-src 'self'" in page and not re.search(r"(src|href)=\"(https?:)?//", page)
        assert ask(server, If_None_Match=headers["ETag"])[0] == 304
        writing.round()
        clock.now += 1000
        assert "4 of 4 rounds, recovery" in ask(server, If_None_Match=headers["ETag"])[2]


def test_before_the_first_round_and_while_files_are_half_there(tmp_path: Path) -> None:
    run, clock = Writing(tmp_path / "run"), Clock()
    with served(run.folder, clock) as server:
        assert "has not begun" in ask(server)[2]
        (run.folder / "config.json").write_text('{"seed": ')
        clock.now += 1000
        assert ask(server)[0] == 200  # what was there before
    with served(run.folder) as server:
        status, _, text = ask(server)
        assert (status, text) == (503, "There is nothing to read at this moment.\n")


def test_a_sweep_leads_to_its_runs(tmp_path: Path) -> None:
    odd = 'attack.fraction=0.2,"><img src=x>'
    run = Writing(tmp_path / odd)
    run.round()
    Writing(tmp_path / "later")
    with run.alive(), served(tmp_path) as server:
        page = ask(server)[2]
        assert "1 running, 1 waiting." in page and "<img src=x>" not in page
        (address,) = re.findall(r'href="(/run/attack[^"]*)"', page)
        status, _, shown = ask(server, address)
        assert status == 200 and "1 of 4 rounds, clean" in shown and '<a href="/">all runs' in shown


def test_only_pages_and_reports_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("not this one")
    run = Writing(tmp_path / "runs" / "a")
    (run.folder / "report.html").write_text("the report")
    with served(tmp_path / "runs") as server:
        assert ask(server, "/report.html?a")[2] == "the report"
        for target in (
            "/config.json",
            "/run/a/config.json",
            "/run/../a",
            "/../report.html",
            "/report.html",
            "/report.html?..",
            "/report.html?../runs/a",
            "/report.html?%2e%2e",
            "/run/%2e%2e/report.html",
            "//etc/passwd",
            "/%00",
        ):
            status, headers, text = ask(server, target)
            assert (status, text) == (404, "There is no such page.\n"), target
            assert headers["Content-Type"].startswith("text/plain")


def test_nothing_but_get(writing: Writing) -> None:
    with served(writing.folder) as server:
        for method in ("POST", "PUT", "DELETE", "HEAD", "OPTIONS"):
            assert ask(server, method=method)[0] == 501


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("evil.example:{port}", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:{port}", 403),
        ("user@localhost@evil.example", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_a_name_that_somebody_elses_dns_points_here_is_refused(tmp_path: Path, host: str, status: int) -> None:
    Writing(tmp_path)
    with served(tmp_path) as server:
        assert ask(server, Host=host.format(port=server.server_port))[0] == status


def test_a_finished_run_links_its_report(writing: Writing) -> None:
    config = json.loads(CONFIG.to_json())
    (writing.folder / "summary.json").write_text(json.dumps({"config": config, "warnings": []}))
    (writing.folder / "report.html").write_text("the report")
    with served(writing.folder) as server:
        page = ask(server)[2]
        assert "is finished" in page
        (address,) = re.findall(r'href="(/?report.html[^"]*)"', page)
        assert ask(server, f"/{address.lstrip('/')}")[2] == "the report"


@pytest.mark.parametrize("port", ["busy", "70000", "-1"])
def test_a_port_that_cannot_be_had_is_one_sentence(
    port: str, writing: Writing, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1]) if port == "busy" else port
        with pytest.raises(SystemExit) as ended:
            main(["watch", str(writing.folder), "--serve", number])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"fedmd: fedmd watch: 127.0.0.1:{number} cannot be served (")
