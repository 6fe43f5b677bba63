"""One run of real processes on loopback that outlives them all: a node, a node's network, the server's app, SuperLink.

In both modes, one after the other, with one SuperLink and three nodes: each test finds the run under way, and leaves it
so. What is lost is a round's answers, never a sample's place in its stream, a record or a number.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pytest

from fedmd.audit.reader import Intact, verify
from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port
from fedmd.deploy.folder import Plan, init_folder
from fedmd.deploy.processes import Processes
from fedmd.report.files import read_metrics
from fedmd.rounds.checkpoint import CHECKPOINT
from fedmd.runs.compose import compose
from tests.deployment import NEEDS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root, for a network of its own"),
    *NEEDS,
]
ROUNDS, WAIT_S, CUT_S = 30, 900.0, 70.0
MODES = {
    "stream": [],
    "update": ["mode=update", "defense=md_screen", "local.samples=40"],
}


class Cable:
    """A network of its own, joined to this machine's by a cable; while that is cut what is sent is lost.

    Needs root, and Linux.
    """

    HERE, THERE = "10.231.77.1", "10.231.77.2"
    _NOBODY = "02:00:00:00:00:01"  # the hardware address of neither end

    def __init__(self) -> None:
        self.name = f"fedmd{os.getpid()}"
        self._near, self._far = f"{self.name}a", f"{self.name}b"

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self.name)
        ip("address", "add", f"{self.HERE}/30", "dev", self._near)
        ip("link", "set", self._near, "up")
        ip("-n", self.name, "address", "add", f"{self.THERE}/30", "dev", self._far)
        for each in (self._far, "lo"):
            ip("-n", self.name, "link", "set", each, "up")
        return self

    def __exit__(self, *error: object) -> None:
        ip("netns", "delete", self.name)

    def cut(self) -> None:
        ip("neighbor", "replace", self.THERE, "lladdr", self._NOBODY, "dev", self._near, "nud", "permanent")
        ip(
            "-n",
            self.name,
            "neighbor",
            "replace",
            self.HERE,
            "lladdr",
            self._NOBODY,
            "dev",
            self._far,
            "nud",
            "permanent",
        )

    def mend(self) -> None:
        ip("neighbor", "delete", self.THERE, "dev", self._near)
        ip("-n", self.name, "neighbor", "delete", self.HERE, "dev", self._far)

    @contextlib.contextmanager
    def losing(self, share: int) -> Iterator[Callable[[], int]]:
        """Meanwhile every `share`-th packet at its far end is lost at random, either way; yields how many there were.

        By nftables: most kernels have that, and fewer the traffic control that is made for it (netem).
        """
        drop = f"numgen random mod {share} 0 counter drop"
        self._nft(
            "add table inet loss; "
            f"add chain inet loss coming {{ type filter hook input priority 0; }}; add rule inet loss coming {drop}; "
            f"add chain inet loss going {{ type filter hook output priority 0; }}; add rule inet loss going {drop}"
        )
        try:
            yield lambda: sum(map(int, re.findall(r"counter packets (\d+)", self._nft("list table inet loss"))))
        finally:
            self._nft("delete table inet loss")

    def _nft(self, command: str) -> str:
        inside = ["ip", "netns", "exec", self.name, "nft", command]
        return subprocess.run(inside, check=True, capture_output=True, text=True).stdout


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Federation:
    """A SuperLink, three nodes as systemd keeps them, and one run."""

    def __init__(self, folder: Path, mode: str, processes: Processes, plan: Plan, cable: Cable) -> None:
        self.folder, self.run, self.mode = folder, folder / "run", mode
        self.processes, self.cable = processes, cable
        self.deployment = Deployment(folder, plan, processes)
        self.config, self._id = self._prepare(plan), ""

    def _prepare(self, plan: Plan) -> RunConfig:
        composed = compose([
            "experiment=smoke", "attack=none", "federation.clients=3", "federation.round_timeout_s=120",
            f"federation.register_file={self.folder}/register.json", f"stream.clean_rounds={ROUNDS}",
            "stream.accumulative_rounds=0", "stream.recovery_rounds=0", *MODES[self.mode], f"hydra.run.dir={self.run}",
        ])  # fmt: skip
        self.overrides = composed.overrides
        self.data = load_federated_data(composed.config)
        for client in range(3):
            own = self.data.streams.sent(client, 2 * ROUNDS) if self.mode == "stream" else self.data.local.of(client)
            write_parquet(own, self.folder / f"data/node-{client}.parquet")
        return composed.config

    def keep(self, name: str, *where: str) -> None:
        """Start a node, and again five seconds after it has ended, as its systemd unit does."""
        start = shlex.join([*where, "bash", str(self.folder / "supernode.sh"), name, str(free_port())])
        self.processes.start(
            name, ["bash", "-c", f"while :; do {start}; sleep 5; done"], SUPERLINK=self.deployment.address
        )

    def submit(self, *overrides: str) -> None:
        self._id = self.deployment.submit(overrides)

    def status(self) -> str:
        return self.deployment.status(self._id)

    def rounds(self) -> list[dict[str, Any]]:
        return read_metrics(self.run) if (self.run / "metrics.jsonl").exists() else []

    def wait(self, what: str, ready: Callable[[], bool]) -> None:
        self.processes.wait_for(what, ready, timeout_s=WAIT_S, needs=["superlink"])

    def all_answer(self) -> None:
        """Wait for a round from now on in which nobody is refused."""
        begun = len(self.rounds())
        self.wait("a round of all", lambda: any(not refused(row) for row in self.rounds()[begun:]))

    def process(self, *words: str) -> int | None:
        """One whose command line has them all."""
        for pid in self.processes.left():
            with contextlib.suppress(OSError):  # it has ended
                if all(word in Path(f"/proc/{pid}/cmdline").read_text() for word in words):
                    return pid
        return None


def refused(row: dict[str, Any]) -> set[int]:
    return {item["client"] for item in row["rejections"]}


@pytest.fixture(scope="module", params=MODES)
def federation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    folder = tmp_path_factory.mktemp(request.param) / "federation"
    plan = Plan(host=Cable.HERE, port=free_port(), control_port=free_port(), nodes=3)
    init_folder(folder, plan)
    with Cable() as cable, Processes(folder / "logs", environment(folder)) as processes:
        found = Federation(folder, request.param, processes, plan, cable)
        found.deployment.make_secrets()
        found.deployment.start_server()
        found.deployment.register_nodes()
        for name in plan.names[:2]:
            found.keep(name)
        found.keep(plan.names[2], "ip", "netns", "exec", cable.name)
        found.submit(*found.overrides)
        yield found
    assert processes.left() == []


def test_a_node_is_killed_and_comes_back(federation: Federation) -> None:
    federation.all_answer()
    pid = federation.process("flower-supernode", "keys/node-1")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    federation.wait("a round without it", lambda: refused(federation.rounds()[-1]) == {1})
    federation.all_answer()


def test_a_nodes_network_is_cut_for_a_minute(federation: Federation) -> None:
    federation.all_answer()
    federation.cable.cut()
    until = time.monotonic() + CUT_S
    federation.wait("a round without it", lambda: refused(federation.rounds()[-1]) == {2})
    federation.wait("the minute's end", lambda: time.monotonic() > until)
    federation.cable.mend()
    federation.all_answer()


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_a_nodes_network_loses_packets(federation: Federation) -> None:
    """One of ten: what is lost is sent again, and nobody is refused."""
    federation.all_answer()
    begun = len(federation.rounds())
    with federation.cable.losing(10) as lost:
        federation.wait("three rounds", lambda: len(federation.rounds()) >= begun + 3)
        assert lost() > 0
    assert not any(refused(row) for row in federation.rounds()[begun:])


def test_the_servers_app_is_asked_to_end(federation: Federation) -> None:
    """The round under way ends, SuperLink calls the run failed, and `resume=` goes on while the nodes live."""
    federation.all_answer()
    pid = federation.process("flwr-serverapp")
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    federation.wait("the run's end", lambda: federation.status().startswith("finished"))
    assert federation.status() != "finished:completed" and (federation.run / CHECKPOINT).exists()
    done = federation.rounds()
    federation.submit(f"resume={federation.run}")
    federation.all_answer()
    assert federation.rounds()[: len(done)] == done


def test_superlink_is_killed_and_started_again(federation: Federation) -> None:
    """Its database knows the keys: the nodes come back by themselves, and `resume=` completes the run.

    The server's app outlives a SuperLink that is killed, and waits for it for ever; systemd ends all of a unit.
    """
    federation.all_answer()
    federation.processes.kill("superlink")
    if (pid := federation.process("flwr-serverapp")) is not None:
        os.kill(pid, signal.SIGKILL)
    federation.processes.wait_for(
        "the end of the server's app", lambda: federation.process("flwr-serverapp") is None, timeout_s=WAIT_S
    )
    assert len(federation.rounds()) < federation.config.stream.rounds and (federation.run / CHECKPOINT).exists()
    federation.deployment.start_server()
    federation.submit(f"resume={federation.run}")
    federation.wait("the run's end", lambda: federation.status().startswith("finished"))
    assert federation.status() == "finished:completed", federation.processes.tail("superlink")
    rows = federation.rounds()
    assert [row["round"] for row in rows] == list(range(federation.config.stream.rounds)) and not refused(rows[-1])
    assert isinstance(verify(federation.run / "audit"), Intact)
    verdicts = pd.read_parquet(federation.run / "verdicts.parquet")
    if federation.mode == "stream":
        for client in range(3):
            sent = verdicts[verdicts["client"] == client]["label"].tolist()
            assert_in_order(sent, federation.data.streams.sent(client, 2 * ROUNDS).labels.tolist(), federation.config)
    else:
        assert set(verdicts["client"]) == {0, 1, 2}


def assert_in_order(sent: list[int], stream: list[int], config: RunConfig) -> None:
    """What was accepted are whole batches of the stream, each once and in their order: its position outlived all."""
    size = config.stream.batch_size
    batches = iter([stream[start : start + size] for start in range(0, len(stream), size)])
    for start in range(0, len(sent), size):
        assert any(batch == sent[start : start + size] for batch in batches)
