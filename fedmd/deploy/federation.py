"""A federation of real processes, run from the folder that `fedmd deploy init` writes: SuperLink, nodes, a run."""

import json
import os
import shlex
import shutil
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

from fedmd.deploy.folder import LOOPBACK, Plan
from fedmd.deploy.processes import ProcessError, Processes
from fedmd.types import Json

_COMMAND_S = 180.0
_START_S = 180.0
_SBIN = ("/usr/sbin", "/usr/local/sbin")
APP = "@fedmd/guarded"  # as app/pyproject.toml calls it
_LET_IN = "SuperNode ID:"  # what Flower's SuperNode logs once it has an id
NAME = "federation"  # of the connection in flower/config.toml


def environment(folder: Path) -> dict[str, str]:
    """What every process of the folder's federation must be told: where Flower's files are, and to report nothing."""
    return {
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }


def has_proxy() -> bool:
    """Whether nginx is installed, where the folder's proxy.sh looks for it."""
    return shutil.which("nginx", path=os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))) is not None


class Deployment:
    """One federation on this machine, through its folder's own scripts; `processes` ends everything it started.

    Without a `proxy` nodes go to SuperLink itself, which only processes of this machine can.
    """

    def __init__(self, folder: Path, plan: Plan, processes: Processes, *, proxy: bool = True) -> None:
        self.folder = folder
        self._plan = plan
        self._processes = processes
        self._public = (plan.host, plan.port) if proxy else (LOOPBACK, plan.control_port)
        self._proxy = proxy

    @property
    def address(self) -> str:
        """Where nodes reach the server."""
        return "{}:{}".format(*self._public)

    def make_secrets(self) -> None:
        """Certificates, the signed app, node keys and the register of who may speak for whom."""
        for script in ("certificates.py", "sign_app.py", "node_keys.py"):
            self._processes.run([sys.executable, str(self.folder / script)], timeout_s=_COMMAND_S)

    def start_server(self) -> None:
        """Start SuperLink and the proxy before it; wait until both answer with certificates of our authority."""
        self._start("superlink", LOOPBACK, self._plan.control_port)
        if self._proxy:
            self.start_proxy()

    def start_proxy(self) -> None:
        """Start what the outside reaches; it answers for SuperLink whether that is up or not."""
        self._start("proxy", self._plan.host, self._plan.port)

    def _start(self, name: str, host: str, port: int) -> None:
        self._processes.start(name, ["bash", str(self.folder / f"{name}.sh")])
        self._processes.wait_for(
            f"the {name}'s answer", lambda: self._answers(host, port), timeout_s=_START_S, needs=[name]
        )

    def register_nodes(self, *names: str) -> None:
        """Let the keys of the nodes `names` in (without any: of all)."""
        keys = [f"keys/{name}.pub" for name in names]
        self._processes.run(["bash", str(self.folder / "register.sh"), *keys], timeout_s=_COMMAND_S * (len(keys) or 10))

    def start_node(self, name: str) -> None:
        """Start a node in the background; its way to the server is its own business."""
        command = ["bash", str(self.folder / "supernode.sh"), name, str(free_port())]
        self._processes.start(name, command, SUPERLINK=self.address)

    def come(self) -> set[str]:
        """The nodes that SuperLink has let in, as their own logs say."""
        return {name for name in self._plan.names if _LET_IN in self._processes.said(name)}

    def submit(self, overrides: Sequence[str]) -> str:
        """Start a run of the folder's signed app with Hydra overrides; its id."""
        text = " ".join(shlex.quote(override) for override in overrides)
        (self.folder / "run.toml").write_text(f"overrides = {json.dumps(text)}\n")
        config = ["--run-config", str(self.folder / "run.toml")]
        reply = self._processes.run(["flwr", "run", APP, NAME, *config, "--format", "json"], timeout_s=_COMMAND_S)
        return str(_json_in(reply)["run-id"])

    def status(self, run_id: str) -> str:
        """`running`, `finished:completed`, `finished:failed`, ... (`flwr run` itself knows only that it was sent)."""
        reply = self._processes.run(
            ["flwr", "list", NAME, "--run-id", run_id, "--format", "json"], timeout_s=_COMMAND_S
        )
        return str(_json_in(reply)["runs"][0]["status"])

    def _answers(self, host: str, port: int) -> bool:
        context = ssl.create_default_context(cafile=str(self.folder / "certificates/ca.pem"))
        try:
            with (
                socket.create_connection((host, port), timeout=2) as plain,
                context.wrap_socket(plain, server_hostname=host),
            ):
                return True
        except OSError:  # nobody there yet; ssl.SSLError is one, too
            return False


def free_port() -> int:
    """A port nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _json_in(text: str) -> Json:
    """Flower's answer: one JSON object, which may come after warnings."""
    start = text.find("{")
    answer = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else {}
    if not isinstance(answer, dict) or not answer.get("success"):
        raise ProcessError(f"Flower refused: {text[-500:]}")
    return answer
