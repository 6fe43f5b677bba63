"""Real processes on loopback: who is let in, and who is turned away."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.deploy.folder import Plan, init_folder
from fedmd.runtime.deployment import Deployment, environment, free_port
from fedmd.runtime.processes import Processes

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")


def test_strangers_are_turned_away(tmp_path: Path) -> None:
    """One SuperLink; a registered node beside three others, each wrong in one way. Nobody is left afterwards."""
    folder, other = tmp_path / "federation", tmp_path / "other"
    init_folder(folder, Plan(port=free_port(), nodes=4))
    init_folder(other, Plan(nodes=1))
    with Processes(folder / "logs", environment(folder)) as processes:
        deployment = Deployment(folder, processes)
        deployment.make_secrets()
        subprocess.run([sys.executable, other / "certificates.py"], check=True, capture_output=True)
        deployment.start_superlink()
        deployment.register_nodes("node-0", "node-2")
        deployment.start_node("node-0")
        deployment.start_node("node-1")  # its key is not registered
        ours, theirs = folder / "certificates/ca.pem", other / "certificates/ca.pem"
        command = ["flower-supernode", "--superlink", "{}:{}".format(*deployment.address()), "--max-retries", "1"]
        trusting_another = [
            "--root-certificates",
            str(theirs),
            "--auth-supernode-private-key",
            str(folder / "keys/node-2"),
        ]
        without_key = ["--root-certificates", str(ours)]
        processes.start("wrong-authority", [*command, *trusting_another, "--port", str(free_port())])
        processes.start("no-key", [*command, *without_key, "--port", str(free_port())])
        turned_away = ["node-1", "wrong-authority", "no-key"]
        processes.wait_for(
            "all strangers to give up",
            lambda: all(processes.exit_code(name) is not None for name in turned_away),
            timeout_s=240,
            needs=["superlink", "node-0"],
        )
        assert all(processes.exit_code(name) != 0 for name in turned_away)
        assert "CERTIFICATE_VERIFY_FAILED" in processes.tail("wrong-authority")
        assert statuses(processes) == ["online", "registered"]  # node-0; node-2, in whose name somebody tried
    assert processes.left() == []


def statuses(processes: Processes) -> list[str]:
    """Of the nodes that the SuperLink knows."""
    text = processes.run(["flwr", "supernode", "list", "federation", "--format", "json"], timeout_s=120)
    return sorted(node["status"] for node in json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["nodes"])
