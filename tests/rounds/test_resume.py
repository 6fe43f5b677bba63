"""A run of either mode that is cut off at any round and goes on from a checkpoint ends as one left in peace."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedmd.audit import release_requests as requests
from fedmd.audit.entries import Entry
from fedmd.audit.quarantine_store import contents
from fedmd.audit.reader import Intact, verify
from fedmd.config import ConfigError
from fedmd.defense.quarantine import Quarantine
from fedmd.rounds.gate import Gate
from fedmd.rounds.loop import is_checkpoint_due
from fedmd.storage import Saved, load_tree, save_tree
from fedmd.types import RoundReport
from tests.rounds.federation import BAD, MODES, Federation, same

Build = Callable[..., Federation]
ROUNDS = 6
CHANGES: dict[str, dict[str, Any]] = {
    "stream": {
        "defense": {"name": "dsc", "rivals": False},
        "history": {"name": "lag", "lag": 2},
        "quarantine": {"name": "evidence", "false_alarms": 6.7379, "rounds": 2, "max_rounds": 1},
    },
    "update": {
        "history": {"name": "lag", "lag": 2},
        "quarantine": {**MODES["update"]["quarantine"], "rounds": 2, "max_rounds": 1},
    },
}


class Crash(Exception):
    """Instead of SIGKILL: nothing after it runs but `with` blocks, which only close files."""


class Process:
    """What one process would hold; a second one in the same folder knows only what is on disk."""

    def __init__(self, run: Federation, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.run, self.folder, self.file = run, folder, folder / "state"
        run.folder = folder

    def go(self, before: Callable[[int], None] = lambda done: None) -> list[RoundReport]:
        """The rounds from the checkpoint on; `before(done)` is called before each checkpoint is made."""
        saved: Saved | None = load_tree(self.file) if self.file.exists() else None
        first = saved["done"] if saved else 0
        if saved:
            self.run.server.restore(saved["server"])
        reports, gates = [], list[Gate[Any]]()
        for result in self.run.rounds(saved=saved and saved["gate"], first=first, on_gate=gates.append):
            reports.append(result.report)
            before(done := result.report.round + 1)
            if is_checkpoint_due(self.run.config, done):
                save_tree(self.file, {"done": done, "server": self.run.server.state(), "gate": gates[0].state()})
        return reports

    def stored(self) -> dict[tuple[int, int], bytes]:
        """The quarantine store by (client, round)."""
        return {(kept.client, kept.round): kept.path.read_bytes() for kept in contents(self.folder / "quarantine")}


Start = Callable[..., Process]


@pytest.fixture
def process(in_mode: Build, tmp_path: Path) -> Start:
    """`process(mode, folder)`: client BAD misbehaves until round 4."""

    def start(mode: str, folder: str, changes: dict[str, Any] | None = None) -> Process:
        return Process(in_mode(mode, {**CHANGES[mode], **(changes or {})}, bad_in=range(4)), tmp_path / folder)

    return start


def stop(at: int) -> Callable[[int], None]:
    """Crash when so many rounds are done."""

    def crash(done: int) -> None:
        if done == at:
            raise Crash

    return crash


def told(report: RoundReport) -> Any:
    """Everything about a round but its times."""
    verdicts = report.verdicts
    return (
        report.round, report.phase, report.accuracy, report.loss, report.rejections, report.quarantined,
        report.clients.tolist(), verdicts.threshold, verdicts.drift,
        None if verdicts.discrepancy is None else verdicts.discrepancy.tolist(),
        verdicts.before.tolist(), [str(value) for value in verdicts.after], verdicts.actions.tolist(),
    )  # fmt: skip


HISTORIES = [
    *(("stream", 1, {"name": name, **more}) for name, more in (("snapshot", {}), ("lag", {"lag": 2}))),
    ("stream", 1, {"name": "ema", "decay": 0.5}),
    ("stream", 2, {"name": "lag", "lag": 2}),
    ("update", 1, {"name": "lag_and_start", "lag": 2}),
    ("update", 1, {"name": "ema", "decay": 0.5}),
    ("update", 2, {"name": "lag", "lag": 2}),
]


@pytest.mark.parametrize(("mode", "every", "history"), HISTORIES, ids=str)
def test_cut_off_after_any_round(process: Start, mode: str, every: int, history: dict[str, Any]) -> None:
    """Twice: before the checkpoint of round `cut` is made, and, after going on, before that of the last round.

    With a checkpoint every other round, a whole round with its step, its evictions and its records is repeated.
    """
    changes = {"history": history, "runtime.checkpoint_every": every}
    whole = process(mode, "whole", changes)
    expected = [told(report) for report in whole.go()]
    entries = whole.run.entries()
    assert {e.action for e in entries if e.kind == "quarantine"} == {"quarantined", "released", "evicted"}
    assert list(whole.stored()) == [(BAD, 5)]  # again in quarantine in round 3, when its time was over
    for cut in (1, 3, 5):
        for at in (cut, ROUNDS):
            with pytest.raises(Crash):
                process(mode, f"cut-{cut}", changes).go(stop(at))
        last = process(mode, f"cut-{cut}", changes)
        reports = last.go()
        assert [told(report) for report in reports] == expected[-len(reports) :]
        assert last.run.entries() == entries and last.stored() == whole.stored()
        assert isinstance(verify(last.folder / "audit"), Intact)
        assert same(whole.run.weights(), last.run.weights())


@pytest.mark.parametrize(
    ("mode", "part"),
    [
        *(("stream", part) for part in ("model", "momentum", "pipeline", "gate")),
        *(("update", part) for part in ("aggregator", "screen", "gate")),
    ],
)
def test_each_part_of_the_state_matters(process: Start, mode: str, part: str) -> None:
    """What this file compares would notice if one of them were forgotten."""
    expected = [told(report) for report in process(mode, "whole").go()]
    with pytest.raises(Crash):
        process(mode, "forgetful").go(stop(3))
    fresh = process(mode, "forgetful")
    saved = load_tree(fresh.file)
    if part == "gate":
        saved["gate"]["quarantine"] = Quarantine().state()
    else:
        saved["server"][part] = process(mode, "new").run.server.state()[part]
    save_tree(fresh.file, saved)
    assert [told(report) for report in fresh.go()] != expected[2:]


# -- release requests, and a trail that is not there ----------------------------------------------------------------

FOR_GOOD: dict[str, Any] = {"quarantine": {**CHANGES["stream"]["quarantine"], "rounds": None, "false_alarms": 0.00614}}


def quarantined_in(entries: Sequence[Entry]) -> int:
    """The round in which client BAD was."""
    return next(
        e.round for e in entries if e.action == "quarantined" and e.kind == "quarantine" and e.round is not None
    )


def test_a_request_is_not_lost_with_the_round_that_put_the_client_there(process: Start, tmp_path: Path) -> None:
    """Killed before the checkpoint that knows of it: the round is repeated, and the request is not stale."""
    peace = process("stream", "peace", FOR_GOOD)
    peace.go()
    since = quarantined_in(peace.run.entries())
    assert since > 0  # there is a checkpoint before it
    folder = tmp_path / "asked" / "quarantine"

    def ask_and_crash(done: int) -> None:
        if done == since + 1:
            requests.request_release(folder, BAD, since)
            raise Crash

    with pytest.raises(Crash):
        process("stream", "asked", FOR_GOOD).go(ask_and_crash)
    again = process("stream", "asked", FOR_GOOD)
    again.go()
    assert [(e.round, e.client) for e in again.run.entries() if e.action == "released"] == [(since + 1, BAD)]
    assert requests.pending(folder) == frozenset()


def test_a_request_is_not_lost_with_the_round_that_fulfilled_it(process: Start, tmp_path: Path) -> None:
    folder = tmp_path / "asked" / "quarantine"

    def ask_and_crash(done: int) -> None:
        if done == 4:
            raise Crash
        if done == 3:
            requests.request_release(folder, BAD, since=1)

    with pytest.raises(Crash):
        process("stream", "asked", FOR_GOOD).go(ask_and_crash)
    assert requests.pending(folder) == {(BAD, 1)}  # round 3 let the client go, and was not to last
    again = process("stream", "asked", FOR_GOOD)
    again.go()
    assert [(e.round, e.client) for e in again.run.entries() if e.action == "released"] == [(3, BAD)]
    assert requests.pending(folder) == frozenset()


def test_a_trail_that_lacks_what_the_checkpoint_saw_is_refused(process: Start, mode: str) -> None:
    run = process(mode, "lost")
    run.go()
    for file in (run.folder / "audit").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"resume: .*is missing"):
        process(mode, "lost").go()
