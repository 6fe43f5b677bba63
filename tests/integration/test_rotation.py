"""Certificates and then their authority change under a federation whose nodes go on; real processes on loopback."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from fedmd.runs.compose import compose
from tests.deployment import NEEDS, statuses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    *NEEDS,
]
NODES = ("node-0", "node-1")


def test_nodes_go_on_when_certificates_and_their_authority_change(tmp_path: Path) -> None:
    folder = tmp_path / "federation"
    plan = Plan(port=free_port(), control_port=free_port(), nodes=2)
    init_folder(folder, plan)
    with Processes(folder / "logs", environment(folder)) as processes:
        deployment = Deployment(folder, plan, processes)
        deployment.make_secrets()
        deployment.start_server()
        deployment.register_nodes()
        for name in NODES:
            deployment.start_node(name)
        runs = Runs(folder, deployment, processes)
        runs.wait_for_nodes("online", "online")
        runs.step("--renew")
        runs.restart_server()
        runs.complete("renewed")  # by nodes that nobody touched

        old = (folder / "certificates/ca.pem").read_bytes()
        runs.step("--new-authority")
        runs.restart_node("node-0")  # it gets the new ca.pem first
        runs.complete("overlap")
        runs.restart_node("node-1")
        runs.step("--renew")
        runs.step("--retire")
        runs.restart_server()
        runs.complete("new")

        (folder / "certificates/ca.pem").write_bytes(old)  # a node that missed all of it
        processes.stop("node-1")
        deployment.start_node("node-1")
        processes.wait_for(
            "the node to say why", lambda: "CERTIFICATE_VERIFY_FAILED" in processes.tail("node-1"), timeout_s=120
        )
    assert processes.left() == []


class Runs:
    """What an operator does between two runs."""

    def __init__(self, folder: Path, deployment: Deployment, processes: Processes) -> None:
        self._folder, self._deployment, self._processes = folder, deployment, processes

    def step(self, option: str) -> None:
        """certificates.py with that option."""
        subprocess.run([sys.executable, self._folder / "certificates.py", option], check=True, capture_output=True)

    def restart_server(self) -> None:
        """SuperLink and the proxy, one after the other, as after a reboot; then the nodes are back."""
        for name in ("proxy", "superlink"):
            self._processes.stop(name)
        self._deployment.start_server()
        self.wait_for_nodes("online", "online")

    def restart_node(self, name: str) -> None:
        """With the ca.pem that is there now."""
        self._processes.stop(name)
        self.wait_for_nodes("offline", "online")
        self._deployment.start_node(name)
        self.wait_for_nodes("online", "online")

    def wait_for_nodes(self, *wanted: str) -> None:
        """Until SuperLink says that of them."""
        self._processes.wait_for(
            f"nodes {wanted}", lambda: statuses(self._processes) == [*wanted], timeout_s=180, needs=["superlink"]
        )

    def complete(self, name: str) -> None:
        """A run of two rounds in which both nodes' samples are learned from."""
        composed = compose([
            "experiment=smoke", "defense=dsc", "attack=none", "federation.clients=2", "stream.accumulative_rounds=0",
            f"federation.register_file={self._folder}/register.json", "stream.recovery_rounds=0",
            f"hydra.run.dir={self._folder}/{name}", f"runtime.cache_dir={self._folder}/cache",
        ])  # fmt: skip
        for client, node in enumerate(NODES):
            if not (path := self._folder / f"data/{node}.parquet").exists():
                write_parquet(load_federated_data(composed.config).streams.sent(client, 20), path)
        run = self._deployment.submit(composed.overrides)
        self._processes.wait_for(
            f"the end of {name}", lambda: self._deployment.status(run).startswith("finished"), timeout_s=240
        )
        assert self._deployment.status(run) == "finished:completed", self._processes.tail("superlink")
        lines = (self._folder / name / "metrics.jsonl").read_text().splitlines()
        assert len(lines) == 2 and all('"rejections": []' in line for line in lines), lines
