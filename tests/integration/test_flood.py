"""A registered node that floods the server of a real federation on loopback, while the others work."""

import sys
from pathlib import Path

import pytest

from fedmd.audit.reader import Intact, read_live, verify
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from fedmd.report.files import read_metrics
from fedmd.runs.compose import compose
from tests.deployment import NEEDS, nodes

WAIT_S = 900.0
ROUNDS = 6
FLOODER = 2
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    *NEEDS,
]
MODES = {
    "stream": [],
    "update": ["mode=update", "defense=discrepancy_screening", "local.samples=40"],
}


@pytest.mark.parametrize("mode", MODES)
def test_who_floods_costs_itself_alone(mode: str, tmp_path: Path) -> None:
    """It begins once the run has a round; from then on the others are judged in every round, and the run completes."""
    folder = tmp_path / "federation"
    plan = Plan(port=free_port(), control_port=free_port(), nodes=3)
    init_folder(folder, plan)
    composed = compose([
        "experiment=smoke", "attack=none", "federation.clients=3", f"federation.register_file={folder}/register.json",
        "federation.round_timeout_s=60", f"stream.clean_rounds={ROUNDS}", "stream.accumulative_rounds=0",
        "stream.trigger_rounds=0", "stream.recovery_rounds=0", *MODES[mode], f"hydra.run.dir={folder}/run",
    ])  # fmt: skip
    data = load_federated_data(composed.config)
    for client in range(3):
        own = data.local.of(client) if mode == "update" else data.streams.sent(client, ROUNDS)
        write_parquet(own, folder / f"data/node-{client}.parquet")
    with Processes(folder / "logs", environment(folder)) as processes:
        deployment = Deployment(folder, plan, processes)
        deployment.make_secrets()
        deployment.start_server()
        ids = []
        for name in plan.names:  # one by one, so that it is known which id is whose
            deployment.register_nodes(name)
            (new,) = {node["node-id"] for node in nodes(processes)} - set(ids)
            ids.append(new)
            deployment.start_node(name)
        run = deployment.submit(composed.overrides)
        processes.wait_for("a round", lambda: rounds_of(folder / "run") > 0, timeout_s=WAIT_S, needs=["superlink"])
        key, authority = folder / "keys" / plan.names[FLOODER], folder / "certificates/ca.pem"
        script = str(Path(__file__).with_name("flood.py"))
        address = deployment.address
        processes.start("flood", [sys.executable, script, address, str(authority), str(key), ids[FLOODER]])
        processes.wait_for(
            "the run's end",
            lambda: deployment.status(run).startswith("finished"),
            timeout_s=WAIT_S,
            needs=["superlink", "proxy", "flood"],
        )
        assert deployment.status(run) == "finished:completed", processes.tail("superlink")
        words = processes.tail("flood").split()
        requests, answers = int(words[-3]), int(words[-1])
    assert requests > 100 and answers > 2
    rows = read_metrics(folder / "run")
    assert [row["round"] for row in rows] == list(range(ROUNDS))
    assert {item["client"] for row in rows for item in row["rejections"]} <= {FLOODER}
    judged = {(e.round, e.client) for r in read_live(folder / "run/audit") if (e := r.entry).kind == "verdict"}
    assert judged >= {(round, client) for round in range(ROUNDS) for client in range(3) if client != FLOODER}
    assert isinstance(verify(folder / "run/audit"), Intact)


def rounds_of(run: Path) -> int:
    """How many rounds are on record."""
    return len(read_metrics(run)) if (run / "metrics.jsonl").exists() else 0
