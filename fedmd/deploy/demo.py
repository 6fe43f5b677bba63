"""`make deployment-demo`: a federation on loopback, attacked, defended, one node lost, and nothing left behind."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from fedmd.attacks.schedule import malicious_clients
from fedmd.audit.reader import Broken, read_live, verify
from fedmd.audit.tables import by_client, in_words, short
from fedmd.audit.trail import FOLDER
from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.data.tables import write_parquet
from fedmd.deploy.federation import Deployment, environment, free_port, has_proxy
from fedmd.deploy.folder import LOOPBACK, Plan, init_folder
from fedmd.deploy.narrator import Narrator
from fedmd.deploy.processes import ProcessError, Processes
from fedmd.report.files import METRICS, read_summary
from fedmd.report.table import terminal, terminal_columns
from fedmd.rounds.folder import CONFIG
from fedmd.runs.compose import Composed, compose
from fedmd.types import Json

RUN_S = 900.0  # gives up after so long; a quiet machine with two cores needs two to three minutes
_KILL_AFTER_ROUNDS = 4
_PROXIED = (
    "SuperLink answers on loopback; nginx passes its interface for nodes on, who must be authenticated, and no other"
)
_NOT_PROXIED = (
    "SuperLink answers on loopback, and nodes of this machine go straight to it, for nginx is not installed; a real "
    "federation needs it (apt-get install nginx-light)"
)


def demo(folder: Path, narrator: Narrator) -> Path:
    """Run it in `folder`; returns the run's folder. Raises ProcessError when something did not work."""
    plan = Plan(host=LOOPBACK, port=free_port(), control_port=free_port(), nodes=4)
    narrator.begin(f"writing the federation's folder, {folder}, and every node's samples")
    init_folder(folder, plan)
    composed = compose(_overrides(folder))
    malicious = _prepare_nodes(folder, plan, composed.config)
    with Processes(folder / "logs", environment(folder)) as processes:
        proxy = has_proxy()
        deployment = Deployment(folder, plan, processes, proxy=proxy)
        narrator.begin("making a certificate authority, the server's certificates, the signed app and four node keys")
        deployment.make_secrets()
        narrator.begin(f"starting SuperLink{' and nginx' if proxy else ''}")
        deployment.start_server()
        narrator.tell(_PROXIED if proxy else _NOT_PROXIED)
        for name in plan.names:
            narrator.begin(f"registering the key of {name}")
            deployment.register_nodes(name)
            deployment.start_node(name)
        narrator.tell(f"four nodes are started; the owner of {malicious} attacks")
        narrator.begin("sending the run to SuperLink")
        run_id = deployment.submit(composed.overrides)
        narrator.begin(f"run {run_id}: waiting for SuperLink to start the server's process")
        victim = next(name for name in reversed(plan.names) if name != malicious)
        _follow(deployment, composed, run_id, victim, processes, narrator)
        narrator.begin("ending every process")
    narrator.tell("every process has ended")
    _print_outcome(composed.folder, plan.names.index(malicious), narrator.say)
    return composed.folder


def _overrides(folder: Path) -> list[str]:
    return [
        "experiment=deployment",
        f"federation.register_file={folder}/register.json",
        f"hydra.run.dir={folder}/run",
    ]


def _prepare_nodes(folder: Path, plan: Plan, config: RunConfig) -> str:
    """Give every node its samples; returns the name of the malicious one."""
    data = load_federated_data(config)
    (member,) = malicious_clients(config.federation.clients, config.attack.fraction, config.seed)
    for client, name in enumerate(plan.names):
        write_parquet(data.streams.sent(client, config.stream.rounds), folder / f"data/{name}.parquet")
    settings = folder / f"nodes/{plan.names[member]}.toml"
    settings.write_text(settings.read_text() + "red-team = true\n")
    return plan.names[member]


def _follow(
    deployment: Deployment,
    composed: Composed,
    run_id: str,
    victim: str,
    processes: Processes,
    narrator: Narrator,
) -> None:
    """Tell who has come and each round as it ends, kill `victim` on the way, and wait for the end of the run."""
    told, killed, asked, begun = 0, False, time.monotonic(), False
    come: set[str] = set()
    deadline = time.monotonic() + RUN_S
    while read_summary(composed.folder) is None:
        for name in deployment.come() - come:
            narrator.tell(f"{name} has come: SuperLink knows its key")
            come.add(name)
        if not begun and (composed.folder / CONFIG).exists():
            narrator.begin("the server burns its model in, then asks the nodes for the first rounds")
            begun = True
        rounds = _rounds(composed.folder)
        for metrics in rounds[told:]:
            narrator.tell(_line(metrics))
        if len(rounds) > told and not killed:
            narrator.begin("asking the nodes for the next rounds")
        told = len(rounds)
        if told >= _KILL_AFTER_ROUNDS and not killed:
            processes.kill(victim)
            narrator.tell(f"{victim} is killed")
            narrator.begin(f"waiting until {victim}'s heartbeat is missed, up to a minute, or its round is over")
            killed = True
        if time.monotonic() > deadline:
            raise ProcessError(f"the run has not ended after {RUN_S:g} s:\n{processes.tail('superlink')}")
        if time.monotonic() - asked > 30:  # a run that failed leaves no summary; each question costs a process
            asked = time.monotonic()
            status = deployment.status(run_id)
            if status.startswith("finished") and read_summary(composed.folder) is None:
                raise ProcessError(f"the run ended as {status}:\n{processes.tail('superlink')}")
        time.sleep(0.5)
    for metrics in _rounds(composed.folder)[told:]:
        narrator.tell(_line(metrics))
    if not killed:
        raise ProcessError("the run ended before a node could be killed")


def _rounds(folder: Path) -> list[Json]:
    try:
        lines = (folder / METRICS).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _line(metrics: Json) -> str:
    accuracy = "  --  " if metrics["accuracy"] is None else f"{100 * metrics['accuracy']:4.1f} %"
    refused = [f"client {entry['client']} refused: {short(entry['reason'], 57)}" for entry in metrics["rejections"]]
    flagged = [f"{what} {100 * (metrics[f'{what}_share'] or 0):3.0f} %" for what in ("corrected", "rejected")]
    head = f"round {metrics['round']:>2} {metrics['phase']:<12} accuracy {accuracy}"
    return "  ".join([head, *flagged, *refused])


def _print_outcome(folder: Path, malicious: int, say: Callable[[str], None]) -> None:
    """Who attacked, what became of everybody's messages, and whether the record of it is whole."""
    trail = folder / FOLDER
    records = list(read_live(trail))
    events = [record.entry for record in records if record.entry.kind == "quarantine"]
    out = [f"client {e.client} in quarantine since round {e.round}" for e in events if e.action == "quarantined"]
    say(f"client {malicious} attacked; {', '.join(out) or 'nobody was put in quarantine'}")
    say(f"\n$ fedmd audit {folder}\n{terminal(by_client(records), columns=terminal_columns())}")
    found = verify(trail)
    say(f"$ fedmd audit {folder} --verify\n{in_words(found)}\n")
    say(f"run folder: {folder}")
    if isinstance(found, Broken):
        raise ProcessError("the audit trail is broken")
