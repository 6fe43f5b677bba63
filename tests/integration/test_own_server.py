"""The small projects under simulations/deployment: their two apps, connected by a grid that only passes messages on."""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.task_identity import TaskIdentity

PROJECT = Path(__file__).resolve().parents[2] / "simulations/deployment"
UPDATES = PROJECT / "update"
NODES = 4


class PassingOn:
    """Every node is client_app with another place."""

    def __init__(self, client_app: object) -> None:
        self._client = client_app

    def get_node_ids(self) -> list[int]:
        return list(range(1, NODES + 1))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float) -> list[Message]:
        replies = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = "asked"
            node = message.metadata.dst_node_id
            settings = {"partition-id": node - 1, "num-partitions": NODES}
            replies.append(self._client(message, Context(1, node, settings, RecordDict(), {})))  # type: ignore[operator]
        return replies


def test_three_lines_keep_noise_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of forty samples are noise. At fpr 0.1 about as many are kept out, and most of the honest ones are not."""
    monkeypatch.syspath_prepend(str(PROJECT))
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    from streamed import client, server

    server.app(PassingOn(client.app), Context(1, 0, {}, RecordDict(), {"rounds": 6, "fpr": 0.1}))
    lines = re.findall(r"accuracy (\S+), learned from (\d+) of (\d+)", capsys.readouterr().out)
    assert [int(sent) for _, _, sent in lines] == [40] * 6
    kept_out = [40 - int(learned) for _, learned, _ in lines]
    assert all(5 <= samples <= 18 for samples in kept_out)
    for module in [name for name in sys.modules if name.split(".")[0] == "streamed"]:
        monkeypatch.delitem(sys.modules, module)


def test_three_lines_screen_updates(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four clients one sends ten times the opposite: it is left out of every round, nobody else is of any.

    Without line (2) the same federation unlearns what it knew.
    """
    monkeypatch.syspath_prepend(str(UPDATES))
    for name, value in (("_task_id", 1), ("_run_id", 1), ("_node_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)
    from screened import client, server

    def accuracies(out: str) -> list[float]:
        return [float(found) for found in re.findall(r"accuracy (\S+)", out)]

    server.app(PassingOn(client.app), Context(1, 0, {}, RecordDict(), {"rounds": 2}))
    out = capsys.readouterr().out
    verdicts = re.findall(r"round (\d+): node (\d+) (\w+)", out)
    assert sorted(verdicts) == [
        (str(round), str(node), "rejected" if node == 1 else "accepted") for round in (1, 2) for node in (1, 2, 3, 4)
    ]
    screened = accuracies(out)
    monkeypatch.setattr(server, "DiscrepancyScreening", lambda strategy, **settings: strategy)
    server.app(PassingOn(client.app), Context(1, 0, {}, RecordDict(), {"rounds": 2}))
    plain = accuracies(capsys.readouterr().out)
    assert plain[0] == screened[0] < screened[-1] and plain[-1] < screened[-1] - 0.2
    for module in [name for name in sys.modules if name.split(".")[0] == "screened"]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("project", [PROJECT, UPDATES])
def test_its_bundle_is_small(project: Path) -> None:
    assert len(build_fab_from_disk(project)) < 10_000
