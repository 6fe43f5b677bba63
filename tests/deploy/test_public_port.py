"""What somebody who knows the federation's address and its CA certificate, and nothing else, can do."""

import subprocess
import time
from pathlib import Path

import pytest

from fedmd.deploy.federation import Deployment, environment, free_port
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from tests.deployment import NEEDS, nodes, statuses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("integration"),  # one after the other with all that starts Flower's processes
    *NEEDS,
]

HOSTILE = '''
"""Says whose code ran where."""
import pathlib
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.app import Message, RecordDict

LOOT = pathlib.Path("{loot}")
server = ServerApp()
client = ClientApp()

@server.main()
def main(grid, context):
    (LOOT / "server").write_text("ran")
    nodes = list(grid.get_node_ids())
    messages = [Message(RecordDict(), node, "query") for node in nodes]
    list(grid.send_and_receive(messages, timeout=60))

@client.query()
def query(message, context):
    (LOOT / "node").write_text("ran")
    return Message(RecordDict(), reply_to=message)
'''
REFUSED = "The FAB could not be verified"
PROJECT = """
[project]
name = "guarded"
version = "1.0.0"
description = "fedmd's server and client"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "fedmd"
fab-include = ["hostile/*.py"]
[tool.flwr.app.components]
serverapp = "hostile.apps:server"
clientapp = "hostile.apps:client"
[tool.flwr.app.config]
"""


class Outsider:
    """Flower's own command line, pointed at an address, with an app that leaves a file wherever it runs."""

    def __init__(self, folder: Path, address: str, ca: Path, processes: Processes) -> None:
        self.loot = folder / "loot"
        self.app = folder / "app"
        (self.app / "hostile").mkdir(parents=True)
        self.loot.mkdir()
        (self.app / "pyproject.toml").write_text(PROJECT)
        (self.app / "hostile/__init__.py").touch()
        (self.app / "hostile/apps.py").write_text(HOSTILE.format(loot=self.loot))
        (folder / "flower").mkdir()
        (folder / "flower/config.toml").write_text(
            f'[superlink.target]\naddress = "{address}"\nroot-certificates = "{ca}"\n'
        )
        self._home = folder / "flower"
        self._processes = processes

    def loot_of(self, machine: str) -> Path:
        return self.loot / machine

    def flwr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command; whether it worked is in its output (`flwr` may exit 0 all the same)."""
        return self._processes.attempt(
            ["flwr", *arguments, "--format", "json"], timeout_s=120, FLWR_HOME=str(self._home)
        )


def test_the_outside_gets_the_fleet_api_and_a_lost_server_no_code_onto_nodes(tmp_path: Path) -> None:
    """`flwr run`, `list`, `unregister`, `register` from outside are refused while a node works through the same port.

    Then the same app on the server's loopback, as whoever has taken the server would start it: the server runs it, the
    node, whose owner pinned the publisher, does not.
    """
    folder = tmp_path / "federation"
    plan = Plan(port=free_port(), control_port=free_port(), nodes=2)
    init_folder(folder, plan)
    with Processes(folder / "logs", environment(folder)) as processes:
        deployment = Deployment(folder, plan, processes)
        deployment.make_secrets()
        deployment.start_server()
        deployment.register_nodes("node-0")
        deployment.start_node("node-0")
        processes.wait_for("node-0", lambda: statuses(processes) == ["online"], timeout_s=120, needs=["node-0"])
        ca = folder / "certificates/ca.pem"
        outsider = Outsider(tmp_path / "outsider", deployment.address, ca, processes)
        did = {
            "list": outsider.flwr("supernode", "list", "target"),
            "run": outsider.flwr("run", str(outsider.app), "target"),
            "register": outsider.flwr("supernode", "register", str(folder / "keys/node-1.pub"), "target"),
        }
        victim = nodes(processes)[0]["node-id"]
        until = time.monotonic() + 40
        while succeeded(did["run"]) and len(list(outsider.loot.iterdir())) < 2 and time.monotonic() < until:
            time.sleep(1)
        did["unregister"] = outsider.flwr("supernode", "unregister", victim, "target")
        assert [path.name for path in outsider.loot.iterdir()] == []
        assert [name for name, done in did.items() if succeeded(done)] == []
        assert statuses(processes) == ["online"]

        insider = Outsider(tmp_path / "insider", f"127.0.0.1:{plan.control_port}", ca, processes)
        assert succeeded(insider.flwr("run", str(insider.app), "target"))
        processes.wait_for("the server to run it", insider.loot_of("server").exists, timeout_s=120)
        processes.wait_for("the node's refusal", lambda: REFUSED in processes.tail("node-0"), timeout_s=120)
        assert not insider.loot_of("node").exists()
    assert processes.left() == []


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and '"success": true' in done.stdout
