"""The gate in the loop, in both modes: first the record, then the step; who is in quarantine leaves no mark."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from fedmd.audit import release_requests as requests
from fedmd.audit.entries import Entry
from fedmd.audit.quarantine_store import QuarantineStore, contents
from fedmd.audit.reader import Intact, verify
from fedmd.audit.trail import AuditTrail
from fedmd.types import Action, RefusedNode, Rejection
from tests.rounds.federation import BAD, MODES, Federation, same

Build = Callable[..., Federation]
ROUNDS = 6
NO_QUARANTINE = {"quarantine": {"name": "none"}}
UNITS = {"stream": 8, "update": 1}  # verdicts on a client's message


def quarantine(mode: str, **changes: Any) -> dict[str, Any]:
    return {"quarantine": {**MODES[mode]["quarantine"], **changes}}


def events(entries: Sequence[Entry], action: str) -> list[tuple[int | None, int | None]]:
    """(round, client) of what happened to clients in quarantine."""
    return [(e.round, e.client) for e in entries if (e.kind, e.action) == ("quarantine", action)]


def test_the_round_is_on_disk_before_the_model_moves(
    in_mode: Build, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = in_mode(mode, NO_QUARANTINE)
    seen: list[tuple[int, int]] = []
    learn = type(run.server).learn

    def watched(server: Any, judged: Any) -> Any:
        rounds = [entry.round for entry in run.entries() if entry.kind == "verdict"]
        seen.append((max(r for r in rounds if r is not None), len(rounds)))
        return learn(server, judged)

    monkeypatch.setattr(type(run.server), "learn", watched)
    list(run.rounds())
    assert seen == [(round, (round + 1) * 5 * UNITS[mode]) for round in range(ROUNDS)]


def test_a_round_that_cannot_be_recorded_moves_nothing(
    in_mode: Build, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in round 2."""
    run, before = in_mode(mode), []
    append = AuditTrail.append

    def full(trail: AuditTrail, entries: Sequence[Entry]) -> None:
        if any(entry.round == 2 for entry in entries):
            raise OSError("no space left")
        append(trail, entries)

    monkeypatch.setattr(AuditTrail, "append", full)
    with pytest.raises(OSError, match="no space left"):
        for _ in run.rounds():
            before.append((run.weights(), run.server.version))
    assert len(before) == 2 and not same(before[0][0], before[1][0])
    assert same(run.weights(), before[-1][0]) and run.server.version == before[-1][1] == 2
    assert max(entry.round or 0 for entry in run.entries()) == 1


def test_what_cannot_be_kept_aside_moves_nothing_and_is_not_recorded(
    in_mode: Build, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    run = in_mode(mode, bad_in=range(ROUNDS))
    start = run.weights()
    monkeypatch.setattr(QuarantineStore, "put", full)
    with pytest.raises(OSError, match="no space left"):
        list(run.rounds())
    assert same(run.weights(), start) and run.server.version == 0
    assert [entry.kind for entry in run.entries()] == ["run"]


def test_every_message_is_told(in_mode: Build, mode: str) -> None:
    lied = (RefusedNode("it lies", "key-8"), RefusedNode("nobody knows it"))
    refused = (Rejection(9, "no such client", "h9"),)
    run = in_mode(mode, NO_QUARANTINE, refused=refused, refused_nodes={1: lied})
    list(run.rounds())
    entries = run.entries()
    assert (entries[0].kind, entries[0].action) == ("run", "started")
    messages = [e for e in entries if e.kind == "message" and e.client is not None]
    assert [(e.round, e.client) for e in messages] == [(r, c) for r in range(ROUNDS) for c in (0, 1, 2, 3, 4, 9)]
    told = {"kind": "message", "action": "rejected", "round": 1}
    assert [e.body() for e in entries if e.kind == "message" and e.client is None] == [
        {**told, "node": "key-8", "reason": "it lies"},
        {**told, "reason": "nobody knows it"},
    ]
    for entry in messages:
        if entry.client == 9:
            assert (entry.action, entry.reason, entry.content) == ("rejected", "no such client", "h9")
        else:
            assert entry.content == f"hash-{entry.client}-{entry.round}"
        assert entry.node == (f"key-{BAD}" if entry.client == BAD else None)
    assert isinstance(verify(run.folder / "audit"), Intact)


def test_a_note_on_a_message_is_no_second_message(in_mode: Build, mode: str) -> None:
    """A record nobody asked for made an accepted message a refused one besides."""
    notes = (Rejection(0, "unexpected records ['x'] were ignored"), Rejection(BAD, "so were these"))
    run = in_mode(mode, refused=notes, bad_in=[0])
    next(run.rounds())
    told = {e.client: (e.action, e.reason) for e in run.entries() if e.kind == "message"}
    assert len([e for e in run.entries() if e.kind == "message"]) == 5
    assert told[0] == ("accepted", "unexpected records ['x'] were ignored")
    assert told[BAD] == ("quarantined", "in quarantine since round 0; so were these")


def test_every_sample_is_told(in_mode: Build) -> None:
    run = in_mode("stream", {**NO_QUARANTINE, "defense.name": "drop", "threshold.fpr": 0.3})
    results = list(run.rounds())
    verdicts = [entry for entry in run.entries() if entry.kind == "verdict"]
    for report in [result.report for result in results]:
        mine = [entry for entry in verdicts if entry.round == report.round]
        assert [e.client for e in mine] == report.clients.tolist()
        assert [e.index for e in mine] == report.index.tolist()
        assert [e.discrepancy for e in mine] == report.verdicts.before.tolist()
        assert [e.action for e in mine] == [Action(a).name.lower() for a in report.verdicts.actions.tolist()]
        assert {e.threshold for e in mine} == {report.verdicts.threshold}
        assert {e.model_version for e in mine} == {report.round}
    assert any(e.action == "rejected" for e in verdicts)


def test_every_update_is_told(in_mode: Build) -> None:
    run = in_mode("update", NO_QUARANTINE, bad_in=range(ROUNDS))
    results = list(run.rounds())
    verdicts = [entry for entry in run.entries() if entry.kind == "verdict"]
    for report in [result.report for result in results]:
        mine = [entry for entry in verdicts if entry.round == report.round]
        assert [e.client for e in mine] == report.clients.tolist() == [0, 1, 2, 3, 4]
        assert [e.action for e in mine] == [Action(a).name.lower() for a in report.verdicts.actions]
        for entry, factor in zip(mine, report.verdicts.before, strict=True):
            assert entry.discrepancy is not None and entry.threshold == 5.0 and entry.score is None
            assert entry.discrepancy / entry.threshold == pytest.approx(factor)
            assert entry.model_version == report.round
            outside = entry.discrepancy > 5
            assert outside == (entry.client == BAD) == ("is not within 0 and 5" in (entry.reason or ""))


def test_where_nobody_screens_updates_are_accepted_and_unmeasured(in_mode: Build) -> None:
    run = in_mode(
        "update", {**NO_QUARANTINE, "defense": {"name": "none"}}, lost={round: [BAD] for round in range(ROUNDS)}
    )
    list(run.rounds())
    for round in range(ROUNDS):
        mine = [entry for entry in run.entries() if entry.round == round]
        refused = [entry for entry in mine if entry.client == BAD]
        assert [(entry.kind, entry.action, entry.reason) for entry in refused] == [("message", "rejected", "lost")]
        others = [entry for entry in mine if entry.client != BAD]
        assert [(e.client, e.kind) for e in others] == [(c, k) for c in (0, 1, 3, 4) for k in ("message", "verdict")]
        assert {(entry.action, entry.discrepancy, entry.threshold) for entry in others} == {("accepted", None, None)}


def test_a_loss_that_decides_is_no_discrepancy(in_mode: Build) -> None:
    lenient = {"screening": {"threshold": "fixed", "upper": 1e9, "loss": "screened"}}
    run = in_mode("update", {**NO_QUARANTINE, **lenient}, bad_in=range(ROUNDS))
    results = list(run.rounds())
    mine = [entry for entry in run.entries() if entry.kind == "verdict" and entry.client == BAD]
    for entry, result in zip(mine, results, strict=True):
        assert entry.action == "rejected" and "its loss" in (entry.reason or "")
        assert entry.score is not None and entry.threshold is not None and entry.score > entry.threshold
        assert entry.discrepancy == result.report.verdicts.discrepancy[BAD] != entry.score


# -- quarantine -----------------------------------------------------------------------------------------------------


def test_the_gate_itself_changes_nothing(in_mode: Build, mode: str) -> None:
    """The same bits recorded, and with evidence that never reaches its limit, as without either."""
    plain, recorded = in_mode(mode, NO_QUARANTINE, bad_in=[1]), in_mode(mode, NO_QUARANTINE, bad_in=[1])
    weighed = in_mode(mode, quarantine(mode, false_alarms=1e-300), bad_in=[1])
    list(plain.unrecorded())
    list(recorded.rounds())
    list(weighed.rounds())
    assert same(plain.weights(), recorded.weights()) and same(plain.weights(), weighed.weights())


@pytest.mark.parametrize(
    ("mode", "action"), [("stream", ""), ("update", "reject"), ("update", "correct"), ("update", "weight")]
)
def test_a_quarantined_client_leaves_no_mark_on_the_model(in_mode: Build, mode: str, action: str) -> None:
    """Found out in its first message: all goes on as if it had never been asked, whatever the screening does."""
    changes = {"screening": {**MODES["update"]["screening"], "action": action}} if mode == "update" else {}
    bad, absent = in_mode(mode, changes, bad_in=range(ROUNDS)), in_mode(mode, changes, without=[BAD])
    results = [result.report for result in bad.rounds()]
    list(absent.rounds())
    assert same(bad.weights(), absent.weights())
    assert all(report.quarantined == (BAD,) for report in results)
    first, later = results[:2]
    mine = first.clients == BAD
    assert mine.sum() == UNITS[mode] and (first.verdicts.actions[mine] == Action.REJECTED).all()
    assert set(first.clients.tolist()) == {0, 1, 2, 3, 4} and BAD not in later.clients
    assert later.rejections == (Rejection(BAD, "in quarantine since round 0"),)
    entries = bad.entries()
    assert events(entries, "quarantined") == [(0, BAD)]
    assert {e.action for e in entries if e.client == BAD} == {"quarantined"}
    kinds = ["message", *["verdict"] * UNITS[mode], "quarantine", *["message"] * (ROUNDS - 1)]
    assert [e.kind for e in entries if e.client == BAD] == kinds


def test_what_it_sent_is_kept(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, bad_in=range(ROUNDS))
    list(run.rounds())
    kept = contents(run.folder / "quarantine")
    assert [(message.client, message.round) for message in kept] == [(BAD, round) for round in range(ROUNDS)]
    sent = [message for message in run.sent if message.client == BAD]
    for stored, message in zip(kept, sent, strict=True):
        if mode == "stream":
            assert np.array_equal(stored.load()["images"].numpy(), message.images)
            assert np.array_equal(stored.load()["labels"].numpy(), message.labels)
        else:
            assert same(stored.load(), message.state)


def test_the_store_is_bounded_and_what_goes_is_told(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, quarantine(mode, max_rounds=2), bad_in=range(ROUNDS))
    list(run.rounds())
    assert [message.round for message in contents(run.folder / "quarantine")] == [4, 5]
    assert events(run.entries(), "evicted") == [(round, BAD) for round in range(4)]


def test_an_operator_releases(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, bad_in=[0])
    folder = run.folder / "quarantine"
    for result in run.rounds():
        if result.report.round == 2:
            requests.request_release(folder, BAD, 0)
            requests.request_release(folder, 4, 0)  # who is not in: forgotten, not saved for later
    released = [e for e in run.entries() if e.action == "released"]
    assert [(e.round, e.client, e.reason) for e in released] == [(3, BAD, "released by an operator")]
    learned = [e.round for e in run.entries() if e.kind == "message" and e.client == BAD and e.action == "accepted"]
    assert learned == [3, 4, 5]
    assert requests.pending(folder) == frozenset()


def test_quarantine_ends(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, quarantine(mode, rounds=2), bad_in=[0])
    inside = [BAD in result.report.quarantined for result in run.rounds()]
    assert inside == [True, True, True, False, False, False]
    assert [(e.round, e.reason) for e in run.entries() if e.action == "released"] == [(3, "its time is over")]


def test_a_new_run_in_the_folder_makes_the_old_records_void(in_mode: Build, mode: str) -> None:
    old, again = in_mode(mode, bad_in=range(ROUNDS)), in_mode(mode)
    list(old.rounds())
    again.folder = old.folder
    list(again.rounds())
    assert len([e for e in again.entries() if e.kind == "message"]) == ROUNDS * 5
    assert not contents(again.folder / "quarantine")
    found = verify(again.folder / "audit")
    assert isinstance(found, Intact) and found.head.seq > 2 * ROUNDS * 5


def test_saved_models_judge_as_the_run_would_have_gone_on(in_mode: Build) -> None:
    run = in_mode("stream", {"history": {"name": "lag", "lag": 2}})
    fresh = in_mode("stream", {"history": {"name": "lag"}})
    list(run.rounds())
    run.server.save_models(run.folder)
    fresh.server.load_models(run.folder)
    batch = run.data.streams.batch(1, 5)
    judged, again = run.server.judge([batch]).verdicts, fresh.server.judge([batch]).verdicts
    assert np.array_equal(judged.before, again.before) and judged.threshold == again.threshold
    assert fresh.server.version == run.server.version == ROUNDS


@pytest.mark.parametrize("history", [{"name": "ema"}, {"name": "lag", "lag": 1}])
def test_saved_models_learn_on_with_their_history(in_mode: Build, history: dict[str, Any]) -> None:
    """What is replayed moves the historical model from where the run has left it, not from burn-in's end."""
    run, fresh = (in_mode("stream", {"history": history, "training.online.momentum": 0.0}) for _ in range(2))
    list(run.rounds())
    run.server.save_models(run.folder)
    fresh.server.load_models(run.folder)
    for round in (5, 6):
        batch = run.data.streams.batch(1, round)
        for server in (run.server, fresh.server):
            server.learn(server.judge([batch]))
    expected, found = (server.pipeline.historical.state_dict() for server in (run.server, fresh.server))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
