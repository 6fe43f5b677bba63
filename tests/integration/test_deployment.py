"""Real processes on loopback: who is let in and who is turned away, and a run of those who are."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.audit.reader import Intact, read_live, verify
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port, has_proxy
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from fedmd.runs.compose import compose

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
    pytest.mark.skipif(not has_proxy(), reason="nginx is not installed"),
]


def test_strangers_are_turned_away_and_the_others_train(tmp_path: Path) -> None:
    """One SuperLink; a registered node beside three others, each wrong in one way; then a run, in mode=update.

    Nobody is left afterwards.
    """
    folder, other = tmp_path / "federation", tmp_path / "other"
    plan = Plan(port=free_port(), control_port=free_port(), nodes=3)
    init_folder(folder, plan)
    init_folder(other, Plan(nodes=1))
    with Processes(folder / "logs", environment(folder)) as processes:
        deployment = Deployment(folder, plan, processes)
        deployment.make_secrets()
        subprocess.run([sys.executable, other / "certificates.py"], check=True, capture_output=True)
        deployment.start_server()
        deployment.register_nodes("node-0", "node-2")
        deployment.start_node("node-0")
        deployment.start_node("node-1")  # its key is not registered
        ours, theirs = folder / "certificates/ca.pem", other / "certificates/ca.pem"
        command = ["flower-supernode", "--superlink", deployment.address, "--max-retries", "1"]
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
        deployment.register_nodes("node-1")
        train_at_home(folder, deployment, processes)
    assert processes.left() == []


def train_at_home(folder: Path, deployment: Deployment, processes: Processes) -> None:
    """A screened run of mode=update in which every node learns from its own samples, and the record of it."""
    composed = compose([
        "experiment=smoke", "mode=update", "defense=md_screen", "attack=none", "federation.clients=3",
        f"federation.register_file={folder}/register.json", "local.samples=40", "stream.accumulative_rounds=0",
        "stream.recovery_rounds=0", f"hydra.run.dir={folder}/run",
    ])  # fmt: skip
    for client in range(3):
        write_parquet(load_federated_data(composed.config).local.of(client), folder / f"data/node-{client}.parquet")
    deployment.start_node("node-1")  # it had given up; its key is registered now
    deployment.start_node("node-2")
    run = deployment.submit(composed.overrides)
    processes.wait_for("the run's end", lambda: deployment.status(run).startswith("finished"), timeout_s=240)
    assert deployment.status(run) == "finished:completed", processes.tail("superlink")
    summary = json.loads((folder / "run/summary.json").read_text())
    assert summary["rounds"] == 2 and summary["accuracy"]["final"] > summary["accuracy"]["burn_in"]
    assert isinstance(verify(folder / "run/audit"), Intact)
    judged = [record.entry for record in read_live(folder / "run/audit") if record.entry.kind == "verdict"]
    assert [(entry.round, entry.client) for entry in judged] == [(r, c) for r in range(2) for c in range(3)]
    assert all(entry.discrepancy is not None and entry.node for entry in judged)


def statuses(processes: Processes) -> list[str]:
    """Of the nodes that the SuperLink knows."""
    text = processes.run(["flwr", "supernode", "list", "federation", "--format", "json"], timeout_s=120)
    return sorted(node["status"] for node in json.JSONDecoder().raw_decode(text[text.index("{") :])[0]["nodes"])
