"""The guard in a real session: first the record, then the step; quarantined clients leave no mark on the model."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.audit.entry import Entry
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.services import guarding, load_models, save_models
from fedmd.rounds.session import Collected, RoundResult, run_session
from torch import nn

from fedmd.audit import release_requests as requests
from fedmd.audit.quarantine_store import contents
from fedmd.audit.reader import Intact, read_live, verify
from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import load_federated_data
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import Action, Rejection, Stranger, StreamBatch

Make = Callable[..., RunConfig]
BAD = 2  # in its noisy rounds this client calls every sample a 9
EVIDENCE = {"name": "evidence", "shift": 0.2, "limit": 5.0}


def label(outputs: ModelOutputs) -> torch.Tensor:
    """A detector whose scores are known in advance: no net has to learn anything for these tests."""
    return outputs.labels.float()


class Run:
    """A session of five clients in this process; `without` are not asked, and `noisy` rounds are client BAD's."""

    def __init__(self, config: RunConfig, folder: Path, without: Sequence[int] = (), noisy: Sequence[int] = ()) -> None:
        self.config, self.folder, self.without, self.noisy = config, folder, without, noisy
        self.strangers: dict[int, tuple[Stranger, ...]] = {}
        self.data = load_federated_data(config)
        placement = Placement.of(config.runtime)
        cache = default_cache_dir(config.runtime.cache_dir)
        trained = burn_in(config, self.data.images, self.data.split, placement=placement, cache_dir=cache)
        self.learner = OnlineLearner(config, self.data.images, self.data.split, trained, placement)
        if config.quarantine.name == "evidence":
            self.learner.pipeline.detector = label

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        batches = [self.data.streams.batch(client, round) for client in clients if client not in self.without]
        for place, batch in enumerate(batches):
            labels = batch.labels
            if batch.client == BAD and round in self.noisy:
                labels = np.full_like(labels, 9)
            batches[place] = StreamBatch(batch.client, round, batch.images, labels, f"hash-{batch.client}-{round}")
        refused, strangers = (Rejection(9, "no such client", "h9"),), self.strangers.get(round, ())
        return Collected(tuple(batches), refused, 1, {BAD: "key-2"}, strangers)

    def results(self) -> Iterator[RoundResult]:
        with guarding(self.config, self.folder) as guard:
            yield from run_session(self.config, self.learner, self, lambda round: "clean", guard)

    def entries(self) -> list[Entry]:
        return [record.entry for record in read_live(self.folder / "audit")]


@pytest.fixture
def run(make_config: Make, tmp_path: Path) -> Callable[..., Run]:
    def build(name: str, changes: dict[str, Any] | None = None, **kwargs: Any) -> Run:
        settings = {"model": {"name": "cnn", "width": 4}, "data.splits": SPLITS, "stream.batch_size": 8}
        return Run(make_config({**settings, "quarantine": EVIDENCE, **(changes or {})}), tmp_path / name, **kwargs)

    return build


SPLITS = {"burn_in": 200, "trusted": 100, "attacker": 20, "test": 30}
Build = Callable[..., Run]


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in run.learner.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_round_is_on_disk_before_the_model_moves(run: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    system = run("order", {"quarantine": {"name": "none"}})
    seen: list[tuple[int, int]] = []
    step = OnlineLearner.step

    def watched(self: OnlineLearner, judged: Any) -> Any:
        rounds = [entry.round for entry in system.entries() if entry.kind == "verdict"]
        seen.append((max(r for r in rounds if r is not None), len(rounds)))
        return step(self, judged)

    monkeypatch.setattr(OnlineLearner, "step", watched)
    list(system.results())
    assert seen == [(round, (round + 1) * 40) for round in range(6)]


def test_every_message_and_sample_is_told(run: Build) -> None:
    system = run("told", {"quarantine": {"name": "none"}, "defense.name": "drop", "threshold.fpr": 0.3})
    system.strangers = {1: (Stranger("it lies", "key-8"), Stranger("nobody knows it"))}
    results = list(system.results())
    entries = system.entries()
    assert (entries[0].kind, entries[0].action) == ("run", "started")
    messages = [e for e in entries if e.kind == "message" and e.client is not None]
    assert [(e.round, e.client) for e in messages] == [(r, c) for r in range(6) for c in (0, 1, 2, 3, 4, 9)]
    strangers = [e for e in entries if e.kind == "message" and e.client is None]
    told = {"kind": "message", "action": "rejected", "round": 1}
    assert [e.body() for e in strangers] == [
        {**told, "node": "key-8", "reason": "it lies"},
        {**told, "reason": "nobody knows it"},
    ]
    for entry in messages:
        if entry.client == 9:
            assert (entry.action, entry.reason, entry.content) == ("rejected", "no such client", "h9")
        else:
            assert entry.content == f"hash-{entry.client}-{entry.round}"
        assert entry.node == ("key-2" if entry.client == 2 else None)
    for result in results:
        report, mine = result.report, [e for e in entries if e.kind == "verdict" and e.round == result.report.round]
        assert [e.client for e in mine] == report.clients.tolist()
        assert [e.index for e in mine] == report.index.tolist()
        assert [e.discrepancy for e in mine] == report.verdicts.before.tolist()
        assert [e.action for e in mine] == [Action(a).name.lower() for a in report.verdicts.actions.tolist()]
        assert {e.threshold for e in mine} == {report.verdicts.threshold}
        assert {e.model_version for e in mine} == {report.round}
    assert any(e.action == "rejected" for e in entries if e.kind == "verdict")
    assert isinstance(verify(system.folder / "audit"), Intact)


def test_without_quarantine_the_guard_changes_nothing(run: Build) -> None:
    """The same bits with a recording guard, and with evidence that never reaches its limit, as without either."""
    plain, recorded = run("plain", {"quarantine": {"name": "none"}}), run("recorded", {"quarantine": {"name": "none"}})
    weighed = run("weighed", {"quarantine": {**EVIDENCE, "limit": 1e9}})
    list(run_session(plain.config, plain.learner, plain, lambda round: "clean"))
    list(recorded.results())
    list(weighed.results())
    assert same(state(plain), state(recorded)) and same(state(plain), state(weighed))


def test_a_caught_client_leaves_no_mark_on_the_model(run: Build) -> None:
    """Caught in its first message: all goes on as if it had never been asked."""
    caught, absent = run("caught", noisy=range(6)), run("absent", without=[BAD])
    results = list(caught.results())
    list(absent.results())
    assert all(BAD in result.report.quarantined for result in results)
    assert same(state(caught), state(absent))
    first, later = results[0].report, results[1].report
    mine = first.clients == BAD
    assert mine.sum() == 8 and (first.verdicts.actions[mine] == Action.REJECTED).all()
    assert BAD not in later.clients
    assert Rejection(BAD, "in quarantine since round 0") in later.rejections
    entries = caught.entries()
    assert [(e.round, e.client) for e in entries if (e.kind, e.action) == ("quarantine", "quarantined")] == [(0, BAD)]
    assert {e.action for e in entries if e.client == BAD and e.kind in ("message", "verdict")} == {"quarantined"}
    kept = contents(caught.folder / "quarantine")
    assert [(batch.client, batch.round) for batch in kept] == [(BAD, round) for round in range(6)]
    tensors, sent = kept[3].load(), caught(3, [BAD], caught.learner.model).batches[0]
    assert np.array_equal(tensors["images"].numpy(), sent.images)
    assert np.array_equal(tensors["labels"].numpy(), sent.labels)


def test_the_shelf_is_bounded_and_what_goes_is_told(run: Build) -> None:
    system = run("bounded", {"quarantine": {**EVIDENCE, "max_rounds": 2}}, noisy=range(6))
    list(system.results())
    assert [batch.round for batch in contents(system.folder / "quarantine")] == [4, 5]
    evicted = [(e.round, e.client) for e in system.entries() if e.action == "evicted"]
    assert evicted == [(round, BAD) for round in range(4)]


def test_an_operator_releases(run: Build) -> None:
    system = run("released", noisy=[0])
    for result in system.results():
        if result.report.round == 2:
            requests.request_release(system.folder / "quarantine", BAD, 0)
            requests.request_release(
                system.folder / "quarantine", 4, 0
            )  # who is not in: forgotten, not saved for later
    released = [e for e in system.entries() if e.action == "released"]
    assert [(e.round, e.client, e.reason) for e in released] == [(3, BAD, "released by an operator")]
    learned = [e.round for e in system.entries() if e.kind == "message" and e.client == BAD and e.action == "accepted"]
    assert learned == [3, 4, 5]
    assert requests.pending(system.folder / "quarantine") == frozenset()


def test_time_is_served(run: Build) -> None:
    system = run("served", {"quarantine": {**EVIDENCE, "rounds": 2}}, noisy=[0])
    inside = [BAD in result.report.quarantined for result in system.results()]
    assert inside == [True, True, True, False, False, False]


def test_a_new_run_in_the_folder_makes_the_old_records_void(run: Build) -> None:
    list(run("twice", noisy=range(6)).results())
    again = run("twice")
    list(again.results())
    assert len([e for e in again.entries() if e.kind == "message"]) == 6 * 6
    assert not contents(again.folder / "quarantine")
    found = verify(again.folder / "audit")
    assert isinstance(found, Intact) and found.head.seq > 2 * 6 * 6


def test_saved_models_judge_as_the_run_would_have_gone_on(run: Build) -> None:
    system, fresh = run("saved", {"history": {"name": "lag", "lag": 2}}), run("fresh", {"history": {"name": "lag"}})
    list(system.results())
    save_models(system.learner, system.folder)
    load_models(fresh.learner, system.folder)
    batch = system.data.streams.batch(1, 5)
    judged, again = system.learner.judge([batch]), fresh.learner.judge([batch])
    assert np.array_equal(judged.screened.verdicts.before, again.screened.verdicts.before)
    assert judged.screened.verdicts.threshold == again.screened.verdicts.threshold
    assert fresh.learner.pipeline.steps == system.learner.pipeline.steps == 6
