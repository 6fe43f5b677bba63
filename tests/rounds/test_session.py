"""Rounds without Flower: a collector made of plain functions feeds the server's session."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.session import Collected, RoundResult, run_session
from torch import nn

from fedmd.attacks.coalition import coalition_of
from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.clients import sample_clients
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import Action, Rejection, StreamBatch

Make = Callable[..., RunConfig]
Weights = dict[str, torch.Tensor]


class Federation:
    """Honest or colluding clients in this process; `lost[round]` are the clients whose batches are refused."""

    def __init__(self, config: RunConfig, folder: Path, lost: dict[int, tuple[int, ...]] | None = None) -> None:
        self.data: FederatedData = load_federated_data(config)
        self.coalition = coalition_of(self.data, folder)
        self.lost = lost or {}
        self.asked: list[tuple[int, ...]] = []
        self.sent: list[StreamBatch] = []
        cache = default_cache_dir(config.runtime.cache_dir)
        placement = Placement.of(config.runtime)
        trained = burn_in(config, self.data.images, self.data.split, placement=placement, cache_dir=cache)
        self.learner = OnlineLearner(config, self.data.images, self.data.split, trained, placement)
        self.config = config

    def __call__(self, round: int, clients: Sequence[int], model: nn.Module) -> Collected:
        self.asked.append(tuple(clients))
        lost = self.lost.get(round, ())
        batches = [self.data.streams.batch(client, round) for client in clients if client not in lost]
        if self.coalition.is_active(round):
            batches = [self.coalition.poison(b, model) if b.client in self.coalition.members else b for b in batches]
        self.sent += batches
        refused = tuple(Rejection(client, "lost") for client in clients if client in lost)
        return Collected(tuple(batches), refused, 10 * len(batches))

    def run(self) -> list[RoundResult]:
        return list(run_session(self.config, self.learner, self, self.coalition.phase))


@pytest.fixture
def federation(make_config: Make, tmp_path: Path) -> Callable[..., Federation]:
    def build(changes: dict[str, Any] | None = None, **kwargs: Any) -> Federation:
        build.count += 1  # type: ignore[attr-defined]
        config = make_config({"model": {"name": "cnn", "width": 2}, **(changes or {})})
        return Federation(config, tmp_path / f"board-{build.count}", **kwargs)  # type: ignore[attr-defined]

    build.count = 0  # type: ignore[attr-defined]
    return build


Build = Callable[..., Federation]
ATTACK = {"name": "accumulative", "fraction": 0.4}


def weights(model: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_rounds_and_phases(federation: Build) -> None:
    results = federation({"attack": ATTACK}).run()
    assert [result.report.round for result in results] == list(range(6))
    expected = ["clean", "clean", "accumulative", "accumulative", "trigger", "recovery"]
    assert [result.report.phase for result in results] == expected


def test_the_phase_is_asked_for_after_the_attackers_have_acted(federation: Build, monkeypatch: Any) -> None:
    """They announce the trigger while a round is under way: that round is the trigger's already."""
    monkeypatch.setattr("fedmd.attacks.coalition.accuracy", lambda model, x, y: accuracies.pop(0))
    accuracies = [0.9, 0.9, 0.1, 0.1]  # two members, two rounds
    results = federation({"attack": {**ATTACK, "stop_error_rise": 0.2}, "stream.accumulative_rounds": 3}).run()
    expected = ["clean", "clean", "accumulative", "trigger", "recovery", "recovery", "recovery"]
    assert [result.report.phase for result in results] == expected


def test_a_report_names_every_sample(federation: Build) -> None:
    system = federation({"defense.name": "drop", "threshold": {"name": "quantile", "fpr": 0.5}})
    results = system.run()
    for round, result in enumerate(results):
        report, batches = result.report, [batch for batch in system.sent if batch.round == round]
        assert report.clients.tolist() == [batch.client for batch in batches for _ in range(4)]
        assert report.index.tolist() == [0, 1, 2, 3] * len(batches)
        assert np.array_equal(report.labels, np.concatenate([batch.labels for batch in batches]))
        assert len(report.verdicts.before) == 4 * len(batches)
        assert report.bytes_received == 10 * len(batches)
        assert set(report.wall_s) == {
            "transport",
            "guard",
            "screening",
            "baselines",
            "correction",
            "step",
            "evaluation",
        }
        assert result.learned is not None
        kept = report.verdicts.actions != Action.REJECTED
        assert result.learned.screened.y.tolist() == report.labels[kept].tolist()
        assert (report.loss is None) == (not kept.any())
    assert any(result.report.verdicts.share(Action.REJECTED) > 0 for result in results)


@pytest.mark.parametrize(
    ("every", "stop", "evaluated"),
    [
        (1, None, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}),
        (4, None, {3, 7} | {9} | {2, 6, 8}),  # every fourth, the last, and the end of each planned phase
        (100, None, {9} | {2, 6, 8}),
        (100, 0.5, {2, 3, 4, 5, 6, 7, 8, 9}),  # an early trigger is possible in any round after the clean ones
    ],
)
def test_evaluation_schedule(federation: Build, every: int, stop: float | None, evaluated: set[int]) -> None:
    lengths = {"clean_rounds": 3, "accumulative_rounds": 4, "trigger_rounds": 2, "recovery_rounds": 1}
    changes = {f"stream.{name}": rounds for name, rounds in lengths.items()}
    attack = {"name": "none", "stop_error_rise": stop}
    results = federation({**changes, "runtime.evaluate_every": every, "attack": attack}).run()
    assert {result.report.round for result in results if result.report.accuracy is not None} == evaluated


def test_accuracy_is_that_of_the_model_after_the_round(federation: Build) -> None:
    system = federation()
    x, y = system.data.images.take(system.data.split.test).tensors()
    for result in run_session(system.config, system.learner, system, system.coalition.phase):
        with torch.no_grad():
            hits = (system.learner.model.eval()(x).argmax(1) == y).float().mean()
        assert result.report.accuracy == pytest.approx(float(hits))


def test_the_trusted_sets_accuracy_is_measured_for_whoever_watches(federation: Build) -> None:
    system = federation({"observability": {"prometheus_port": 0}, "runtime.evaluate_every": 2})
    x, y = system.data.images.take(system.data.split.trusted).tensors()
    for result in run_session(system.config, system.learner, system, system.coalition.phase):
        found = result.report.trusted_accuracy
        assert (found is None) == (result.report.accuracy is None)
        with torch.no_grad():
            hits = (system.learner.model.eval()(x).argmax(1) == y).float().mean()
        assert found is None or found == pytest.approx(float(hits))
    assert all(result.report.trusted_accuracy is None for result in federation().run())


def test_a_round_without_a_batch_makes_no_step(federation: Build) -> None:
    system = federation({"history": {"name": "lag", "lag": 1}}, lost={1: (0, 1, 2, 3, 4)})
    seen = []
    for result in run_session(system.config, system.learner, system, system.coalition.phase):
        seen.append((result.report, weights(system.learner.model), system.learner.pipeline.steps))
    report, after, steps = seen[1]
    assert same(after, seen[0][1]) and steps == 1 and seen[2][2] == 2
    assert not same(after, seen[2][1])
    assert (report.loss, report.bytes_received, report.verdicts.threshold) == (None, 0, None)
    assert len(report.clients) == len(report.verdicts.before) == len(report.labels) == 0
    assert report.rejections == tuple(Rejection(client, "lost") for client in range(5))
    assert report.accuracy == seen[0][0].accuracy


def test_lost_clients_cost_only_their_own_samples(federation: Build) -> None:
    results = federation(lost={2: (3,)}).run()
    assert sorted(set(results[2].report.clients.tolist())) == [0, 1, 2, 4]
    assert results[2].report.rejections == (Rejection(3, "lost"),)
    assert all(not result.report.rejections for round, result in enumerate(results) if round != 2)


def test_frozen_learns_nothing(federation: Build) -> None:
    system = federation({"defense.name": "frozen", "model": {"name": "resnet_small", "width": 4}})
    before = weights(system.learner.model)
    results = system.run()
    assert same(before, weights(system.learner.model))
    assert system.learner.pipeline.steps == 0  # thresholds and histories count steps, not rounds
    assert len({result.report.accuracy for result in results}) == 1
    assert all(result.report.loss is None for result in results)


def test_sampled_clients(make_config: Make, federation: Build) -> None:
    config = make_config({"federation": {"clients": 8, "clients_per_round": 3}})
    rounds = [sample_clients(config, round) for round in range(200)]
    assert rounds == [sample_clients(config, round) for round in range(200)]  # a function of (seed, round)
    assert all(len(set(drawn)) == 3 and list(drawn) == sorted(drawn) for drawn in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=8)
    assert counts.min() > 75 - 5 * 6.9 and counts.max() < 75 + 5 * 6.9  # 200 * 3/8, sd sqrt(200 * 3/8 * 5/8)
    other = make_config({"federation": {"clients": 8, "clients_per_round": 3}, "seed": 1})
    assert [sample_clients(other, round) for round in range(200)] != rounds
    system = federation({"federation": {"clients": 8, "clients_per_round": 3}})
    system.run()
    assert system.asked == rounds[:6]


def test_all_clients_take_part_unless_told(make_config: Make) -> None:
    assert sample_clients(make_config(), 3) == (0, 1, 2, 3, 4)


def test_fraction_zero_is_no_attack_bit_for_bit_and_more_is_not(federation: Build) -> None:
    final, numbers = {}, {}
    for name, attack in {
        "none": {"name": "none"},
        "zero": {**ATTACK, "fraction": 0.0, "stop_error_rise": 0.01},
        "some": ATTACK,
    }.items():
        system = federation({"attack": attack, "defense.name": "dsc"})
        results = system.run()
        final[name] = weights(system.learner.model)
        numbers[name] = [(r.report.loss, r.report.accuracy, r.report.verdicts.before.tolist()) for r in results]
    assert same(final["none"], final["zero"]) and numbers["none"] == numbers["zero"]
    assert not same(final["none"], final["some"])
    assert numbers["none"][:2] == numbers["some"][:2]  # clean rounds are clean


def test_a_run_survives_a_diverged_model(federation: Build) -> None:
    """A successful attack may leave NaN behind: the remaining rounds are still reported."""
    results = federation({"training.online.lr": 1e30, "defense.name": "dsc", "threshold": {"name": "quantile"}}).run()
    assert len(results) == 6
    assert np.isnan(results[-1].report.verdicts.before).all()
    assert results[-1].report.verdicts.threshold is None


def test_clipping_bounds_the_servers_step(federation: Build) -> None:
    """Without momentum a step is at most lr * clip_norm long, and with a small bound exactly that."""
    system = federation({"defense": {"name": "clip", "clip_norm": 1e-3}, "training.online.momentum": 0.0})
    before = torch.cat([p.detach().flatten().clone() for p in system.learner.model.parameters()])
    result = next(run_session(system.config, system.learner, system, system.coalition.phase))
    after = torch.cat([p.detach().flatten() for p in system.learner.model.parameters()])
    assert float((after - before).double().norm()) == pytest.approx(0.02 * 1e-3, rel=0.02)  # float32 weights
    assert set(result.report.verdicts.actions) == {Action.ACCEPTED}


def test_every_sample_is_scored_by_every_detector_unless_told(federation: Build) -> None:
    expected = {
        "historical_loss",
        "current_loss",
        "confidence",
        "pixel_distance",
        "kernel_density",
        "lid",
        "mahalanobis",
    }
    watched, alone = federation().run(), federation({"defense": {"name": "none", "rivals": False}}).run()
    for result, plain in zip(watched, alone, strict=True):
        assert set(result.report.verdicts.baselines) == expected and plain.report.verdicts.baselines == {}
        assert all(len(scores) == 20 for scores in result.report.verdicts.baselines.values())
        assert np.array_equal(result.report.verdicts.before, plain.report.verdicts.before)
        assert (result.report.loss, result.report.accuracy) == (plain.report.loss, plain.report.accuracy)


DROP = {
    "defense": {"name": "drop", "detector": "pixel_distance"},
    "threshold": {"name": "quantile", "fpr": 0.2},
    "stream.batch_size": 20,
}


def darken(system: Federation) -> Federation:
    """The server's trusted images are no longer like the stream."""
    x, y = system.learner.pipeline.trusted
    system.learner.pipeline.trusted = (0.2 * x, y)
    return system


def test_drift_is_warned_of_once_and_reported_in_every_round(federation: Build, caplog: Any) -> None:
    results = darken(federation(DROP)).run()
    drifted = [result.report.verdicts.drift for result in results]
    assert all(drift is not None and drift.promised == 0.2 and drift.rate > 0.9 for drift in drifted)
    warnings = [record.getMessage() for record in caplog.records if "threshold drift" in record.getMessage()]
    assert len(warnings) == 1 and "promised 20.0 %" in warnings[0]


def test_no_warning_without_drift(federation: Build, caplog: Any) -> None:
    results = federation(DROP).run()
    assert 0 < np.mean([result.report.verdicts.share(Action.REJECTED) for result in results]) < 0.5
    assert all(result.report.verdicts.drift is None for result in results) and not caplog.records


def test_no_warning_where_the_threshold_is_not_in_force(federation: Build, caplog: Any) -> None:
    results = darken(federation({**DROP, "defense": {"name": "none", "detector": "pixel_distance"}})).run()
    assert all(result.report.verdicts.drift is None for result in results) and not caplog.records


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_cuda(federation: Build, precision: str) -> None:
    settings = {"runtime.device": "cuda", "runtime.precision": precision, "runtime.channels_last": True}
    system = federation({**settings, "attack": ATTACK, "defense.name": "dsc"})
    results = system.run()
    assert all(parameter.is_cuda for parameter in system.learner.model.parameters())
    assert all(result.report.accuracy is not None for result in results)
    assert all(np.isfinite(result.report.verdicts.before).all() for result in results)


def test_attack_success_is_evaluated_with_the_accuracy(federation: Build) -> None:
    backdoor = {"name": "backdoor", "fraction": 0.4, "patch_size": 2, "target": 3}
    system = federation({"attack": backdoor, "runtime.evaluate_every": 2, "stream.clean_rounds": 3})
    reports = [result.report for result in system.run()]
    assert [report.attack_success is None for report in reports] == [report.accuracy is None for report in reports]
    test = system.data.images.take(system.data.split.test)
    hits = []
    for image, label in zip(test.images, test.labels, strict=True):
        if label != 3:
            stamped = torch.from_numpy(image).float() / 255
            stamped[:, -2:, -2:] = 1.0
            hits.append(int(system.learner.model.eval()(stamped[None]).argmax()) == 3)
    assert reports[-1].attack_success == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("attack", [{"name": "none"}, {"name": "backdoor", "fraction": 0.0}, {"name": "label_flip"}])
def test_there_is_no_attack_success_without_a_backdoor(federation: Build, attack: dict[str, Any]) -> None:
    assert all(result.report.attack_success is None for result in federation({"attack": attack}).run())
