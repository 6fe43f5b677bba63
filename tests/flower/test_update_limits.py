"""Quarantine and limits in federations of mode=update, over the wire: who is refused, and what is told of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, Message, RecordDict
from torch import Tensor

from fedmd.audit.entries import Entry
from fedmd.audit.reader import read_live
from fedmd.cli import main as cli
from fedmd.data.clients import sample_clients
from fedmd.flower.server import nodes
from fedmd.flower.wire.header import read_info
from fedmd.types import Action, Rejection

BAD = 1
ROUNDS = 3
FIXED = {"threshold": "fixed", "upper": 5.0, "loss": "ignored"}
SCREENED = {"defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}, "screening": FIXED}
EVIDENCE = {
    "quarantine": {"name": "evidence", "shift": 0.5, "false_alarms": 606.5}
}  # one round outside the limits is enough
Spoil = Callable[[RecordDict], None]


def torn(content: RecordDict) -> None:
    """The client's model with weights a thousand times as large: valid, and far outside the limits."""
    record = content.array_records[f"update.{BAD}"]
    for name in list(record):
        record[name] = Array(record[name].numpy() * np.float32(1000))


def missing(content: RecordDict) -> None:
    del content[f"update.{BAD}"]


def only_first(spoil: Spoil) -> Spoil:
    """`spoil` in round 0 alone."""

    def once(content: RecordDict) -> None:
        if content.config_records["fedmd"]["round"] == 0:
            spoil(content)

    return once


def entries(folder: Path) -> list[Entry]:
    return [record.entry for record in read_live(folder / "audit")]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_a_quarantined_client_leaves_no_mark_on_the_model(run: Any, tmp_path: Path) -> None:
    """Found out in its first message: all goes on as if it had never answered."""
    correcting = {**SCREENED, "screening": {**FIXED, "action": "correct"}}
    quarantined = run({**correcting, **EVIDENCE}, spoil={BAD: torn})
    without = run(correcting, spoil={BAD: missing})
    assert same(quarantined.weights, without.weights)
    reports = quarantined.reports
    assert all(report.quarantined == (BAD,) for report in reports)
    assert reports[0].verdicts.actions[BAD] == Action.REJECTED and list(reports[0].clients) == [0, 1, 2, 3, 4]
    assert list(reports[1].clients) == [0, 2, 3, 4]
    assert reports[2].rejections == (Rejection(BAD, "in quarantine since round 0"),)
    recorded = entries(tmp_path / "0")
    assert [(e.round, e.client) for e in recorded if (e.kind, e.action) == ("quarantine", "quarantined")] == [(0, BAD)]
    assert {e.action for e in recorded if e.client == BAD} == {"quarantined"}
    assert [e.kind for e in recorded if e.client == BAD] == ["message", "verdict", "quarantine", "message", "message"]


def test_a_round_nobody_answers_is_a_round(run: Any, tmp_path: Path) -> None:
    """Node 0 never comes back: its clients are refused when the deadline has passed, the others go on."""
    federation = {"clients": 5, "nodes": 2, "round_timeout_s": 0.2}
    reports = run({"federation": federation}, mute=[0]).reports
    assert [list(report.clients) for report in reports] == [[1, 3]] * ROUNDS
    assert reports[0].rejections == tuple(Rejection(client, "no answer before the deadline") for client in (0, 2, 4))
    reports = run({"federation": federation}, mute=[0, 1]).reports
    assert [len(report.rejections) for report in reports] == [5] * ROUNDS
    assert len({report.accuracy for report in reports}) == 1
    assert len([entry for entry in entries(tmp_path / "1") if entry.action == "rejected"]) == 5 * ROUNDS


@pytest.mark.parametrize("per_round", [5, 1])
def test_a_node_that_is_not_let_in_is_told_of_once(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_config: Any, small_updates: Any, per_round: int
) -> None:
    """Of those asked in the first round it speaks for some, or for all: then nobody is asked."""
    federation = {"clients": 5, "nodes": 2, "clients_per_round": per_round}
    first = sample_clients(make_config({**small_updates, "federation": federation}), 0)
    liar = 100 + first[0] % 2

    def heard(reply: Message, clients: int) -> Any:
        if reply.metadata.src_node_id == liar:
            raise ValueError("it lies")
        return read_info(reply, clients)

    monkeypatch.setattr(nodes, "read_info", heard)
    reports = run({"federation": federation}).reports
    assert (len(reports[0].clients) == 0) == (per_round == 1)
    told = [entry for entry in entries(tmp_path / "0") if entry.kind == "message" and entry.client is None]
    reason = f"node {liar} is not part of the federation: it lies"
    assert told == [Entry("message", "rejected", round=0, reason=reason)]


def test_too_few_valid_updates_move_nothing(run: Any) -> None:
    reports = run({"limits": {"min_clients": 5}}, spoil={BAD: only_first(missing)}).reports
    first, second, _ = reports
    assert len(first.clients) == 0 and len(second.clients) == 5
    assert [rejection.client for rejection in first.rejections] == [0, 1, 2, 3, 4]
    assert "limits.min_clients=5" in first.rejections[0].reason and first.rejections[0].content is not None
    assert run().reports[0].accuracy is not None


def test_a_message_beyond_the_limit_is_not_read(run: Any) -> None:
    reports = run({"limits": {"max_message_bytes": 1000}}).reports
    assert all("more than limits.max_message_bytes=1000" in r.reason for report in reports for r in report.rejections)
    assert all(len(report.rejections) == 5 for report in reports)


def test_without_a_limit_a_message_has_room_for_what_was_asked(run: Any) -> None:
    def more(content: RecordDict) -> None:
        content.array_records[f"update.{BAD}"]["huge"] = Array(np.zeros(10**6, np.float32))

    reports = run(spoil={BAD: more}).reports
    for report in reports:
        assert list(report.clients) == [0, 2, 4]  # 1 and 3 share the node whose message is too large
        assert all("that the asked updates take" in rejection.reason for rejection in report.rejections)


def test_the_claim_of_samples_has_a_limit(run: Any) -> None:
    reports = run({"limits": {"max_samples": 23}}).reports
    assert {r.reason for r in reports[0].rejections} == {"examples must be a number from 1 to 23, not 24"}


def test_the_quarantine_command(
    run: Any, make_config: Any, small_updates: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run({**SCREENED, **EVIDENCE}, spoil={BAD: torn})
    folder = tmp_path / "0"
    config = make_config({**small_updates, **SCREENED, **EVIDENCE})
    (folder / "summary.json").write_text(
        json.dumps({"config": json.loads(config.to_json()), "detection": {}, "wall_s": {}})
    )

    def call(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            cli.main([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, out or err

    code, text = call("quarantine", folder, "list")
    assert code == 0 and text.splitlines()[2].split()[:5] == [str(BAD), "since", "round", "0", str(ROUNDS)]
    assert "kept: round 0" in call("quarantine", folder, "show", BAD)[1]
    code, text = call("quarantine", folder, "replay", BAD)
    assert code == 2 and "replay is for mode=stream" in text and text.count("\n") == 1
    code, text = call("audit", folder)
    rows = [line.split() for line in text.splitlines()[2:]]
    assert code == 0 and [row[:4] for row in rows] == [
        [str(client), str(ROUNDS), "0", str(ROUNDS if client == BAD else 0)] for client in range(5)
    ]
    assert call("audit", folder, "--verify")[1].startswith("intact")
