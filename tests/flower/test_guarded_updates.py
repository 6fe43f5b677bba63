"""Record, quarantine and limits in mode=update: first the trail, then the aggregation; who is out leaves no mark."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.audit.entry import Entry
from flwr.app import Array, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from fedmd.audit import release_requests as requests
from fedmd.audit.quarantine_store import contents
from fedmd.audit.reader import Intact, read_live, verify
from fedmd.cli import main as cli
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.flower.server import nodes
from fedmd.flower.wire import read_info
from fedmd.models import model_for
from fedmd.types import Action, Rejection, RoundReport

BAD = 1
ROUNDS = 3
FIXED = {"threshold": "fixed", "upper": 5.0, "loss": "ignored"}
SCREENED = {"defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}, "screening": FIXED}
EVIDENCE = {"quarantine": {"name": "evidence", "shift": 0.5, "limit": 0.5}}  # one round outside the limits is enough
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


def test_the_round_is_on_disk_before_the_strategy_aggregates(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[tuple[int | None, int | None, str, str]]] = []
    aggregate = FedAvg.aggregate_train

    def watched(self: FedAvg, server_round: int, replies: Iterable[Message]) -> Any:
        recorded = [entry for entry in entries(tmp_path / "0") if entry.round == server_round - 1]
        seen.append({(entry.round, entry.client, entry.kind, entry.action) for entry in recorded})
        return aggregate(self, server_round, replies)

    monkeypatch.setattr(FedAvg, "aggregate_train", watched)
    run(SCREENED, spoil={BAD: torn})
    for round in range(ROUNDS):
        verdicts = {(round, c, "verdict", "rejected" if c == BAD else "accepted") for c in range(5)}
        assert seen[round] == verdicts | {(round, c, "message", action) for _, c, _, action in verdicts}


def test_every_message_and_verdict_is_recorded(run: Any, tmp_path: Path) -> None:
    reports, _ = run(SCREENED, spoil={BAD: torn})
    recorded = entries(tmp_path / "0")
    for report in reports:
        verdicts = [entry for entry in recorded if entry.kind == "verdict" and entry.round == report.round]
        assert [entry.client for entry in verdicts] == report.clients.tolist() == [0, 1, 2, 3, 4]
        assert [entry.action for entry in verdicts] == [Action(a).name.lower() for a in report.verdicts.actions]
        for entry, factor in zip(verdicts, report.verdicts.before, strict=True):
            assert entry.discrepancy is not None and entry.threshold == 5.0 and entry.score is None
            assert entry.discrepancy / entry.threshold == pytest.approx(factor)
            assert entry.model_version == report.round and entry.content is not None and len(entry.content) == 64
            outside = entry.discrepancy > 5
            assert outside == (entry.client == BAD) == ("is not within 0 and 5" in (entry.reason or ""))
    messages = [entry for entry in recorded if entry.kind == "message"]
    assert len({entry.content for entry in messages}) == len(messages) == 5 * ROUNDS
    assert isinstance(verify(tmp_path / "0" / "audit"), Intact)


def test_where_nobody_screens_messages_are_accepted_and_unmeasured(run: Any, tmp_path: Path) -> None:
    reports, _ = run(spoil={BAD: missing})
    for report in reports:
        mine = [entry for entry in entries(tmp_path / "0") if entry.round == report.round]
        refused = [entry for entry in mine if entry.client == BAD]
        assert [(entry.kind, entry.action, entry.reason) for entry in refused] == [
            ("message", "rejected", "there is no update")
        ]
        others = [entry for entry in mine if entry.client != BAD]
        assert [(entry.client, entry.kind) for entry in others] == [
            (client, kind) for client in (0, 2, 3, 4) for kind in ("message", "verdict")
        ]
        assert {(entry.action, entry.discrepancy, entry.threshold) for entry in others} == {("accepted", None, None)}


def test_a_loss_that_decides_is_no_discrepancy(run: Any, tmp_path: Path) -> None:
    lenient = {**SCREENED, "screening": {"threshold": "fixed", "upper": 1e9, "loss": "screened"}}
    reports, _ = run(lenient, spoil={BAD: torn})
    mine = [entry for entry in entries(tmp_path / "0") if entry.kind == "verdict" and entry.client == BAD]
    for entry, report in zip(mine, reports, strict=True):
        assert entry.action == "rejected" and "its loss" in (entry.reason or "")
        assert entry.score is not None and entry.threshold is not None and entry.score > entry.threshold
        assert entry.discrepancy == report.verdicts.discrepancy[BAD] != entry.score


def test_a_caught_client_leaves_no_mark_on_the_model(run: Any, tmp_path: Path) -> None:
    """Caught in its first message: all goes on as if it had never answered."""
    reports, state = run({**SCREENED, **EVIDENCE, "screening": {**FIXED, "action": "correct"}}, spoil={BAD: torn})
    _, without = run({**SCREENED, "screening": {**FIXED, "action": "correct"}}, spoil={BAD: missing})
    assert same(state, without)
    assert all(report.quarantined == (BAD,) for report in reports)
    assert reports[0].verdicts.actions[BAD] == Action.REJECTED and list(reports[0].clients) == [0, 1, 2, 3, 4]
    assert list(reports[1].clients) == [0, 2, 3, 4]
    assert reports[2].rejections == (Rejection(BAD, "in quarantine since round 0"),)
    recorded = entries(tmp_path / "0")
    assert [(e.round, e.client) for e in recorded if (e.kind, e.action) == ("quarantine", "quarantined")] == [(0, BAD)]
    assert {e.action for e in recorded if e.client == BAD} == {"quarantined"}
    assert [e.kind for e in recorded if e.client == BAD] == ["message", "verdict", "quarantine", "message", "message"]


def test_what_it_sent_is_kept_within_bounds(run: Any, tmp_path: Path) -> None:
    sent: list[dict[str, Tensor]] = []

    def remember(content: RecordDict) -> None:
        torn(content)
        sent.append(content.array_records[f"update.{BAD}"].to_torch_state_dict())

    run({**SCREENED, "quarantine": {**EVIDENCE["quarantine"], "max_rounds": 2}}, spoil={BAD: remember})
    kept = contents(tmp_path / "0" / "quarantine")
    assert [(update.client, update.round) for update in kept] == [(BAD, 1), (BAD, 2)]
    assert all(same(update.load(), sent[update.round]) for update in kept)
    assert [(e.round, e.client) for e in entries(tmp_path / "0") if e.action == "evicted"] == [(0, BAD)]


def test_an_operator_releases(run: Any, tmp_path: Path) -> None:
    def let_go(report: RoundReport) -> None:
        if report.round == 1:
            requests.request_release(tmp_path / "0" / "quarantine", BAD, 0)

    reports, _ = run({**SCREENED, **EVIDENCE}, spoil={BAD: only_first(torn)}, watch=let_go)
    assert [report.quarantined for report in reports] == [(BAD,), (BAD,), ()]
    assert reports[2].verdicts.actions[BAD] == Action.ACCEPTED


def test_unmeasured_evidence_changes_nothing(run: Any) -> None:
    _, plain = run(SCREENED, spoil={BAD: torn})
    _, weighed = run({**SCREENED, "quarantine": {"name": "evidence", "limit": 1e9}}, spoil={BAD: torn})
    assert same(plain, weighed)


def test_a_round_nobody_answers_is_a_round(run: Any, tmp_path: Path) -> None:
    """Node 0 never comes back: its clients are refused when the deadline has passed, the others go on."""
    federation = {"clients": 5, "nodes": 2, "round_timeout_s": 0.2}
    reports, _ = run({"federation": federation}, mute=[0])
    assert [list(report.clients) for report in reports] == [[1, 3]] * ROUNDS
    assert reports[0].rejections == tuple(Rejection(client, "no answer before the deadline") for client in (0, 2, 4))
    reports, _ = run({"federation": federation}, mute=[0, 1])
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
    reports, _ = run({"federation": federation})
    assert (len(reports[0].clients) == 0) == (per_round == 1)
    told = [entry for entry in entries(tmp_path / "0") if entry.kind == "message" and entry.client is None]
    reason = f"node {liar} is not part of the federation: it lies"
    assert told == [Entry("message", "rejected", round=0, reason=reason)]


def test_too_few_valid_updates_move_nothing(run: Any) -> None:
    reports, _ = run({"limits": {"min_clients": 5}}, spoil={BAD: only_first(missing)})
    first, second, _ = reports
    assert len(first.clients) == 0 and len(second.clients) == 5
    assert [rejection.client for rejection in first.rejections] == [0, 1, 2, 3, 4]
    assert "limits.min_clients=5" in first.rejections[0].reason and first.rejections[0].content is not None
    assert run()[0][0].accuracy is not None


def test_a_message_beyond_the_limit_is_not_read(run: Any) -> None:
    reports, _ = run({"limits": {"max_message_bytes": 1000}})
    assert all("more than limits.max_message_bytes=1000" in r.reason for report in reports for r in report.rejections)
    assert all(len(report.rejections) == 5 for report in reports)


def test_without_a_limit_a_message_has_room_for_what_was_asked(run: Any) -> None:
    def more(content: RecordDict) -> None:
        content.array_records[f"update.{BAD}"]["huge"] = Array(np.zeros(10**6, np.float32))

    reports, _ = run(spoil={BAD: more})
    for report in reports:
        assert list(report.clients) == [0, 2, 4]  # 1 and 3 share the node whose message is too large
        assert all("that the asked updates take" in rejection.reason for rejection in report.rejections)


def test_the_trusted_sets_accuracy_is_measured_for_whoever_watches(
    run: Any, make_config: Any, small_updates: Any
) -> None:
    reports, state = run({"observability": {"prometheus_port": 0}})
    data = load_federated_data(make_config(small_updates))
    x, y = data.images.take(data.split.trusted).tensors()
    model = model_for(data.config.model, data.images, 0).eval()
    model.load_state_dict(state)
    with torch.no_grad():
        assert reports[-1].trusted_accuracy == pytest.approx(float((model(x).argmax(1) == y).float().mean()))
    assert all(report.trusted_accuracy is None for report in run()[0])


def test_the_claim_of_samples_has_a_limit(run: Any) -> None:
    reports, _ = run({"limits": {"max_samples": 23}})
    assert {r.reason for r in reports[0].rejections} == {"examples must be a number from 1 to 23, not 24"}


def test_the_quarantine_command(
    run: Any, make_config: Any, small_updates: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run({**SCREENED, **EVIDENCE}, spoil={BAD: torn})
    folder = tmp_path / "0"
    config = make_config({**small_updates, **SCREENED, **EVIDENCE})
    (folder / "summary.json").write_text(json.dumps({"config": json.loads(config.to_json()), "detection": {}, "wall_s": {}}))

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
