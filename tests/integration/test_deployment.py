"""Real processes on loopback: who is let in and who is turned away, and a run of those who are."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedmd.audit.reader import Intact, read_live, verify
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from fedmd.runs.compose import compose
from tests.deployment import NEEDS, statuses

WAIT_S = 600.0
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    *NEEDS,
]


MODES = {
    "stream": [],
    "update": ["mode=update", "defense=md_screen", "local.samples=40"],
}
AHEAD_S = 60  # of the server's clock; five seconds would be let in


@pytest.fixture(scope="module")
def skew(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that puts the clock of a process forward."""
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("skew") / "skew.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, Path(__file__).with_name("skew.c"), "-ldl"], check=True
    )
    return library


@pytest.mark.parametrize("mode", MODES)
def test_strangers_are_turned_away_and_the_others_train(mode: str, skew: Path, tmp_path: Path) -> None:
    """One SuperLink; a registered node beside five others, each wrong in one way; then a run.

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

        def start(name: str, authority: Path, *more: str, **environment: str) -> None:
            command = ["flower-supernode", "--superlink", deployment.address, "--max-retries", "1"]
            port = ["--port", str(free_port())]
            processes.start(name, [*command, "--root-certificates", str(authority), *port, *more], **environment)

        def key(name: str) -> list[str]:
            return ["--auth-supernode-private-key", str(folder / "keys" / name)]

        start("wrong-authority", theirs, *key("node-2"))
        start("no-key", ours)
        start("wrong-clock", ours, *key("node-2"), LD_PRELOAD=str(skew), SKEW_S=str(AHEAD_S))
        processes.wait_for("node-0", lambda: "online" in statuses(processes), timeout_s=WAIT_S, needs=["node-0"])
        start("twin", ours, *key("node-0"))
        turned_away = ["node-1", "wrong-authority", "no-key", "wrong-clock", "twin"]
        processes.wait_for(
            "all strangers to give up",
            lambda: all(processes.exit_code(name) is not None for name in turned_away),
            timeout_s=WAIT_S,
            needs=["superlink", "node-0"],
        )
        ended = {name: processes.exit_code(name) for name in turned_away}
        assert ended.pop("wrong-clock") == 0  # Flower's SuperNode ends as if it had been asked to, without a word
        assert 0 not in ended.values(), ended
        assert "CERTIFICATE_VERIFY_FAILED" in processes.tail("wrong-authority")
        assert statuses(processes) == ["online", "registered"]  # node-0; node-2, in whose name somebody tried
        deployment.register_nodes("node-1")
        train_at_home(mode, folder, deployment, processes)
    assert processes.left() == []


def train_at_home(mode: str, folder: Path, deployment: Deployment, processes: Processes) -> None:
    """A screened run in which every node has its own samples, and the record of it."""
    composed = compose([
        "experiment=smoke", "attack=none", "federation.clients=3", f"federation.register_file={folder}/register.json",
        "stream.accumulative_rounds=0", "stream.recovery_rounds=0", *MODES[mode], f"hydra.run.dir={folder}/run",
    ])  # fmt: skip
    data = load_federated_data(composed.config)
    for client in range(3):
        own = data.local.of(client) if mode == "update" else data.streams.sent(client, composed.config.stream.rounds)
        write_parquet(own, folder / f"data/node-{client}.parquet")
    deployment.start_node("node-1")  # it had given up; its key is registered now
    deployment.start_node("node-2")
    run = deployment.submit(composed.overrides)
    processes.wait_for("the run's end", lambda: deployment.status(run).startswith("finished"), timeout_s=WAIT_S)
    assert deployment.status(run) == "finished:completed", processes.tail("superlink")
    summary = json.loads((folder / "run/summary.json").read_text())
    rounds = composed.config.stream.rounds
    assert summary["rounds"] == rounds
    assert summary["accuracy"]["final"] > summary["accuracy"]["burn_in"] - (0.1 if mode == "stream" else 0.0)
    assert isinstance(verify(folder / "run/audit"), Intact)
    judged = [record.entry for record in read_live(folder / "run/audit") if record.entry.kind == "verdict"]
    assert {(entry.round, entry.client) for entry in judged} == {(r, c) for r in range(rounds) for c in range(3)}
    assert all(entry.node for entry in judged)
