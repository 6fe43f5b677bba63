"""The round loop, in both modes: who is asked, what is reported and when, and rounds in which nothing comes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.rounds.loop import is_checkpoint_due
from fedmd.types import Rejection
from tests.rounds.federation import Federation, Weights, same

Make = Callable[..., RunConfig]
Build = Callable[..., Federation]
ROUNDS = 6
EVERYBODY = (0, 1, 2, 3, 4)
ATTACK = {"name": "accumulative", "fraction": 0.4}
FREE = {"quarantine": {"name": "none"}}


def accuracy(run: Federation, part: str) -> float:
    """Worked out here."""
    x, y = run.data.images.take(getattr(run.data.split, part)).tensors()
    with torch.no_grad():
        return float((run.server.model.net.eval()(x).argmax(1) == y).float().mean())


def test_rounds_and_phases(in_mode: Build, mode: str) -> None:
    reports = [result.report for result in in_mode(mode, {"attack": ATTACK}).rounds()]
    assert [report.round for report in reports] == list(range(ROUNDS))
    assert [report.phase for report in reports] == [
        "clean", "clean", "accumulative", "accumulative", "trigger", "recovery",
    ]  # fmt: skip


def test_the_phase_is_asked_for_after_the_messages_have_arrived(in_mode: Build, mode: str) -> None:
    """Attackers may decide while they are asked: the round is then of the phase that they have chosen."""
    run = in_mode(mode)
    list(run.rounds(phase_of=lambda round: {round + 1: "clean"}[len(run.asked)]))


def test_an_early_trigger_is_the_trigger_of_its_round(federation: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """They announce it while a round is under way: that round is the trigger's already."""
    monkeypatch.setattr("fedmd.attacks.coalition.accuracy", lambda model, x, y: accuracies.pop(0))
    accuracies = [0.9, 0.9, 0.1, 0.1]  # two members, two rounds
    run = federation({"attack": {**ATTACK, "stop_error_rise": 0.2}, "stream.accumulative_rounds": 3})
    expected = ["clean", "clean", "accumulative", "trigger", "recovery", "recovery", "recovery"]
    assert [result.report.phase for result in run.rounds()] == expected


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
    results = federation({**changes, "runtime.evaluate_every": every, "attack": attack}).rounds()
    assert {result.report.round for result in results if result.report.accuracy is not None} == evaluated


def test_accuracy_is_that_of_the_model_after_the_round(in_mode: Build, mode: str) -> None:
    run = in_mode(mode)
    for result in run.rounds():
        assert result.report.accuracy == pytest.approx(accuracy(run, "test"))


def test_the_trusted_sets_accuracy_is_measured_for_whoever_watches(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, {"observability": {"prometheus_port": 0}, "runtime.evaluate_every": 2})
    for result in run.rounds():
        found = result.report.trusted_accuracy
        assert (found is None) == (result.report.accuracy is None)
        assert found is None or found == pytest.approx(accuracy(run, "trusted"))
    assert all(result.report.trusted_accuracy is None for result in in_mode(mode).rounds())


def test_attack_success_is_evaluated_with_the_accuracy(federation: Build) -> None:
    backdoor = {"name": "backdoor", "fraction": 0.4, "patch_size": 2, "target": 3}
    run = federation({"attack": backdoor, "runtime.evaluate_every": 2, "stream.clean_rounds": 3})
    reports = [result.report for result in run.rounds()]
    assert [report.attack_success is None for report in reports] == [report.accuracy is None for report in reports]
    test = run.data.images.take(run.data.split.test)
    hits = []
    for image, label in zip(test.images, test.labels, strict=True):
        if label != 3:
            stamped = torch.from_numpy(image).float() / 255
            stamped[:, -2:, -2:] = 1.0
            hits.append(int(run.server.model.net.eval()(stamped[None]).argmax()) == 3)
    assert reports[-1].attack_success == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("attack", [{"name": "none"}, {"name": "backdoor", "fraction": 0.0}, {"name": "label_flip"}])
def test_there_is_no_attack_success_without_a_backdoor(federation: Build, attack: dict[str, Any]) -> None:
    assert all(result.report.attack_success is None for result in federation({"attack": attack}).rounds())


# -- who is asked, and who answers ----------------------------------------------------------------------------------


def test_sampled_clients(make_config: Make, in_mode: Build, mode: str) -> None:
    config = make_config({"federation": {"clients": 8, "clients_per_round": 3}})
    rounds = [sample_clients(config, round) for round in range(200)]
    assert rounds == [sample_clients(config, round) for round in range(200)]  # a function of (seed, round)
    assert all(len(set(drawn)) == 3 and list(drawn) == sorted(drawn) for drawn in rounds)
    counts = np.bincount(np.concatenate(rounds), minlength=8)
    assert counts.min() > 75 - 5 * 6.9 and counts.max() < 75 + 5 * 6.9  # 200 * 3/8, sd sqrt(200 * 3/8 * 5/8)
    other = make_config({"federation": {"clients": 8, "clients_per_round": 3}, "seed": 1})
    assert [sample_clients(other, round) for round in range(200)] != rounds
    run = in_mode(mode, {"federation": {"clients": 8, "clients_per_round": 3}})
    list(run.rounds())
    assert run.asked == rounds[:ROUNDS]


def test_all_clients_take_part_unless_told(make_config: Make) -> None:
    assert sample_clients(make_config(), 3) == EVERYBODY


def test_a_round_without_a_message_moves_nothing(in_mode: Build, mode: str) -> None:
    run = in_mode(mode, FREE, lost={1: EVERYBODY})
    seen: list[tuple[Any, Weights, int]] = []
    for result in run.rounds():
        seen.append((result.report, run.weights(), run.server.version))
    report, after, version = seen[1]
    assert same(after, seen[0][1]) and not same(after, seen[2][1])
    assert (seen[0][2], version, seen[2][2]) == (1, 1, 2)
    assert (report.loss, report.bytes_received, report.verdicts.threshold) == (None, 0, None)
    assert len(report.clients) == len(report.verdicts.before) == len(report.labels) == 0
    assert report.rejections == tuple(Rejection(client, "lost") for client in EVERYBODY)
    assert report.accuracy == seen[0][0].accuracy


def test_lost_clients_cost_only_their_own_messages(in_mode: Build, mode: str) -> None:
    reports = [result.report for result in in_mode(mode, lost={2: (3,)}).rounds()]
    assert sorted(set(reports[2].clients.tolist())) == [0, 1, 2, 4]
    assert reports[2].rejections == (Rejection(3, "lost"),)
    assert all(not report.rejections for report in reports if report.round != 2)


def test_a_rounds_seconds_are_told_by_stage(in_mode: Build, mode: str) -> None:
    (report, *_) = [result.report for result in in_mode(mode).rounds()]
    stages = {"stream": {"screening", "baselines", "correction"}, "update": {"screening"}}
    assert set(report.wall_s) == {"transport", "guard", *stages[mode], "step", "evaluation"}
    assert all(seconds >= 0 for seconds in report.wall_s.values())


@pytest.mark.parametrize(
    ("every", "per_reply", "due"),
    [(1, 1, {1, 2, 3, 4, 5, 6}), (4, 1, {4, 6}), (0, 1, {1, 2, 3, 4, 5, 6}), (1, 2, {2, 4, 6}), (3, 2, {4, 6})],
)
def test_a_checkpoint_is_made_only_between_replies(
    make_config: Make, every: int, per_reply: int, due: set[int]
) -> None:
    config = make_config({"runtime.checkpoint_every": every, "federation.batches_per_reply": per_reply})
    assert {done for done in range(1, ROUNDS + 1) if is_checkpoint_due(config, done)} == due
