"""A session that is cut off at any round and goes on from a checkpoint file ends as one that was left in peace."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.audit.entry import Entry
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.services import guarding
from fedmd.rounds.session import Collected, is_checkpoint_due, run_session
from torch import nn

from fedmd.audit import release_requests as requests
from fedmd.audit.quarantine_store import contents
from fedmd.audit.reader import Intact, read_live, verify
from fedmd.config import ConfigError, RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import load_federated_data
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.rounds.gate import Guard
from fedmd.storage import Saved, load_tree, save_tree
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import RoundReport, StreamBatch

Make = Callable[..., RunConfig]
ROUNDS = 6
CHANGES: dict[str, Any] = {
    "model": {"name": "cnn", "width": 4},
    "data.splits": {"burn_in": 200, "trusted": 100, "attacker": 20, "test": 30},
    "stream.batch_size": 8,
    "defense": {"name": "dsc", "rivals": False},
    "quarantine": {"name": "evidence", "limit": 5.0, "rounds": 2, "max_rounds": 1},
}
HISTORIES = [{"name": "snapshot"}, {"name": "lag", "lag": 2}, {"name": "ema", "decay": 0.5}]


def label(outputs: ModelOutputs) -> torch.Tensor:
    """Scores that are known in advance, so that client 2, who calls everything a 9, is caught."""
    return outputs.labels.float()


class Crash(Exception):
    """Instead of SIGKILL: nothing after it runs but `with` blocks, which only close files."""


class Server:
    """What one process would hold; a second one in the same folder knows only what is on disk."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        self.config, self.folder, self.file = config, folder, folder / "state"
        self.data = load_federated_data(config)
        cache = default_cache_dir(config.runtime.cache_dir)
        trained = burn_in(config, self.data.images, self.data.split, placement=Placement(), cache_dir=cache)
        self.learner = OnlineLearner(config, self.data.images, self.data.split, trained, Placement())
        self.learner.pipeline.detector = label
        self.guard: Guard | None = None

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        batches = [self.data.streams.batch(client, round) for client in clients]
        spoilt = [replace(b, labels=np.full_like(b.labels, 9)) if b.client == 2 and round < 4 else b for b in batches]
        return Collected(tuple(StreamBatch(b.client, round, b.images, b.labels, "h") for b in spoilt), (), 1)

    def go(self, before: Callable[[int], None] = lambda done: None) -> list[RoundReport]:
        """The rounds from the checkpoint on; `before(done)` is called before each checkpoint is made."""
        saved: Saved | None = load_tree(self.file) if self.file.exists() else None
        first = saved["done"] if saved else 0
        if saved:
            self.learner.restore(saved["learner"])
        reports = []
        with guarding(self.config, self.folder, saved and saved["guard"], first) as guard:
            for result in run_session(self.config, self.learner, self, lambda round: "clean", guard, first=first):
                reports.append(result.report)
                before(done := result.report.round + 1)
                if is_checkpoint_due(self.config, done):
                    state = {"done": done, "learner": self.learner.state(), "guard": guard.state()}
                    save_tree(self.file, state)
        return reports

    def entries(self) -> list[Entry]:
        return [record.entry for record in read_live(self.folder / "audit")]

    def shelf(self) -> dict[tuple[int, int], bytes]:
        return {(k.client, k.round): k.path.read_bytes() for k in contents(self.folder / "quarantine")}


def told(report: RoundReport) -> Any:
    """Everything about a round but its times."""
    verdicts = report.verdicts
    return (
        report.round, report.accuracy, report.loss, report.rejections, report.quarantined, verdicts.threshold,
        verdicts.drift, None if verdicts.discrepancy is None else verdicts.discrepancy.tolist(),
        verdicts.before.tolist(), verdicts.after.tolist(), verdicts.actions.tolist(),
    )  # fmt: skip


@pytest.mark.parametrize(("every", "history"), [*((1, history) for history in HISTORIES), (2, HISTORIES[1])], ids=str)
def test_cut_off_after_any_round(make_config: Make, tmp_path: Path, every: int, history: dict[str, Any]) -> None:
    """Twice: before the checkpoint of round `cut` is made, and, after going on, before that of the last round.

    With a checkpoint every other round, a whole round with its step, its evictions and its records is repeated.
    """
    config = make_config({**CHANGES, "history": history, "runtime.checkpoint_every": every})
    (tmp_path / "whole").mkdir()
    whole = Server(config, tmp_path / "whole")
    expected = [told(report) for report in whole.go()]
    assert {e.action for e in whole.entries() if e.kind == "quarantine"} == {"quarantined", "released", "evicted"}
    assert [kept for kept in whole.shelf()] == [(2, 5)]  # caught again in round 3, when its time was over

    def stop(at: int) -> Callable[[int], None]:
        def crash(done: int) -> None:
            if done == at:
                raise Crash

        return crash

    for cut in (1, 3, 5):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        for at in (cut, ROUNDS):
            with pytest.raises(Crash):
                Server(config, folder).go(stop(at))
        last = Server(config, folder)
        reports = last.go()
        assert [told(report) for report in reports] == expected[-len(reports) :]
        assert last.entries() == whole.entries() and last.shelf() == whole.shelf()
        assert isinstance(verify(folder / "audit"), Intact)
        for name, tensor in whole.learner.model.state_dict().items():
            assert torch.equal(tensor, last.learner.model.state_dict()[name])


@pytest.mark.parametrize("part", ["model", "momentum", "pipeline", "guard"])
def test_each_part_of_the_state_matters(make_config: Make, tmp_path: Path, part: str) -> None:
    """What this file compares would notice if one of them were forgotten."""
    config = make_config({**CHANGES, "history": HISTORIES[1]})
    servers = []
    for name in ("whole", "forgetful"):
        (tmp_path / name).mkdir()
        servers.append(Server(config, tmp_path / name))
    expected = [told(report) for report in servers[0].go()]

    def crash(done: int) -> None:
        if done == 3:
            raise Crash

    with pytest.raises(Crash):
        servers[1].go(crash)
    fresh = Server(config, tmp_path / "forgetful")
    saved = load_tree(fresh.file)
    if part == "guard":
        saved["guard"]["quarantine"] = Guard().quarantine.state()
    else:
        saved["learner"][part] = Server(config, tmp_path / "forgetful").learner.state()[part]
    save_tree(fresh.file, saved)
    assert [told(report) for report in fresh.go()] != expected[2:]


@pytest.fixture
def quarantined_for_good(make_config: Make) -> RunConfig:
    return make_config({**CHANGES, "quarantine": {**CHANGES["quarantine"], "rounds": None, "limit": 12.0}})


def caught_in(entries: Sequence[Entry]) -> int:
    """The round in which client 2 was."""
    return next(
        e.round for e in entries if e.action == "quarantined" and e.kind == "quarantine" and e.round is not None
    )


def test_a_request_is_not_lost_with_the_round_that_caught_the_client(
    quarantined_for_good: RunConfig, tmp_path: Path
) -> None:
    """Killed before the checkpoint that knows of it: the round is repeated, and the request is not stale."""
    peace = Server(quarantined_for_good, tmp_path / "peace")
    peace.folder.mkdir()
    peace.go()
    since = caught_in(peace.entries())
    assert since > 0  # there is a checkpoint before it

    def ask_and_crash(done: int) -> None:
        if done == since + 1:
            requests.request_release(tmp_path / "quarantine", 2, since)
            raise Crash

    with pytest.raises(Crash):
        Server(quarantined_for_good, tmp_path).go(ask_and_crash)
    server = Server(quarantined_for_good, tmp_path)
    server.go()
    assert [(e.round, e.client) for e in server.entries() if e.action == "released"] == [(since + 1, 2)]
    assert requests.pending(tmp_path / "quarantine") == frozenset()


def test_a_request_is_not_lost_with_the_round_that_fulfilled_it(
    quarantined_for_good: RunConfig, tmp_path: Path
) -> None:
    config = quarantined_for_good

    def ask_and_crash(done: int) -> None:
        if done == 4:
            raise Crash
        if done == 3:
            requests.request_release(tmp_path / "quarantine", 2, since=1)

    with pytest.raises(Crash):
        Server(config, tmp_path).go(ask_and_crash)
    assert requests.pending(tmp_path / "quarantine") == {(2, 1)}  # round 3 let the client go, and was not to last
    server = Server(config, tmp_path)
    server.go()
    released = [e for e in server.entries() if e.action == "released"]
    assert [(e.round, e.client) for e in released] == [(3, 2)]
    assert requests.pending(tmp_path / "quarantine") == frozenset()


def test_a_trail_that_lacks_what_the_checkpoint_saw_is_refused(make_config: Make, tmp_path: Path) -> None:
    server = Server(make_config(CHANGES), tmp_path)
    server.go()
    for file in (tmp_path / "audit").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match=r"resume: .*has no record"):
        Server(make_config(CHANGES), tmp_path).go()


@pytest.mark.parametrize(
    ("every", "per_reply", "due"),
    [(1, 1, {1, 2, 3, 4, 5, 6}), (4, 1, {4, 6}), (0, 1, {1, 2, 3, 4, 5, 6}), (1, 2, {2, 4, 6}), (3, 2, {4, 6})],
)
def test_a_checkpoint_is_made_only_between_replies(
    make_config: Make, every: int, per_reply: int, due: set[int]
) -> None:
    config = make_config({"runtime.checkpoint_every": every, "federation.batches_per_reply": per_reply})
    assert {done for done in range(1, ROUNDS + 1) if is_checkpoint_due(config, done)} == due
