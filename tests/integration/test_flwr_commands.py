"""The `flwr` commands of README files and docs, typed as a user types them, through Flower's own launcher.

Flower says with its exit code only that a run was handed in, so its outcome is read from `flwr list`. The SuperLink
that `flwr run` starts has a home and ports of this test's own, and is ended by its process id.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("simulations/deployment/README.md", "docs/deployment.md", "docs/expected-results.md")
FENCE = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def blocks() -> list[list[str]]:
    """The lines of every block that runs something on the local SuperLink."""
    found = [text for page in PAGES for text in FENCE.findall((ROOT / page).read_text())]
    return [text.replace("\\\n", " ").splitlines() for text in found if "flwr run" in text and " local " in text]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which no other SuperLink is met."""
    ports = []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(str(free.getsockname()[1]))
    yield {
        **{key: value for key, value in os.environ.items() if not key.startswith("FLWR_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "FLWR_HOME": str(tmp_path / "flower"),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and runs_from(process, tmp_path / "flower"):
            os.kill(int(process.name), signal.SIGTERM)


def runs_from(process: Path, home: Path) -> bool:
    """Whether it is a SuperLink that was started with this FLWR_HOME."""
    try:
        command, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False
    return b"flower-superlink" in command and f"FLWR_HOME={home}\0".encode() in environment


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds its SuperLink in /proc")
@pytest.mark.parametrize("lines", [pytest.param(lines, id=lines[1]) for lines in blocks()])
def test_the_flwr_commands_of_the_pages_work(lines: list[str], home: dict[str, str], tmp_path: Path) -> None:
    started = 0
    for line in lines:
        words = shlex.split(line.replace("/tmp/", f"{tmp_path}/"), comments=True)
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            home[name] = value
            continue
        if words[0] == "pkill":  # there is none of ours, and those of others are no business of a test
            continue
        assert words[0] == "flwr", line
        done = subprocess.run(words, cwd=ROOT, env=home, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        started += words[1] == "run"
        if words[1] == "run":
            said = done.stdout
    assert words[1] == "list"  # each block ends by asking how it went
    runs = json.loads(done.stdout)["runs"]
    assert [run["status"] for run in runs] == ["finished:completed"] * started, said
