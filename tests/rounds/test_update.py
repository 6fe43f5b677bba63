"""The server of mode=update: what it says of every update, and what of an update it hands to the aggregator."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fedmd.training.local import floating
from fedmd.types import Action
from tests.rounds.federation import BAD, MODES, Federation, same

Build = Callable[..., Federation]
FREE = {"quarantine": {"name": "none"}}


def screening(**changes: Any) -> dict[str, Any]:
    return {**FREE, "screening": {**MODES["update"]["screening"], **changes}}


def judged(run: Federation) -> Any:
    """Round 0's updates, judged and not yet learned from."""
    return run.server.judge(run(0, range(5), run.server.model.net).messages)


def test_what_is_rejected_is_not_learned_from(in_mode: Build) -> None:
    run = in_mode("update", screening(upper=0.0))
    start = run.weights()
    reports = [result.report for result in run.rounds()]
    assert all(set(report.verdicts.actions) == {Action.REJECTED} for report in reports)
    assert same(run.weights(), start) and run.server.version == 0


def test_without_screening_every_update_is_accepted_unmeasured(in_mode: Build) -> None:
    run = in_mode("update", {**FREE, "defense": {"name": "none"}}, bad_in=range(6))
    for result in run.rounds():
        assert set(result.report.verdicts.actions) == {Action.ACCEPTED}
        assert np.isnan(result.report.verdicts.before).all() and result.report.verdicts.threshold is None
        assert "screening" not in result.report.wall_s


@pytest.mark.parametrize("action", ["reject", "correct", "weight"])
def test_what_is_left_of_an_update_outside_the_limits(in_mode: Build, action: str) -> None:
    run = in_mode("update", screening(action=action, upper=0.5), bad_in=[0], factor=5.0)
    start = floating(run.weights())
    found = judged(run)
    before, after = found.verdicts.before, found.verdicts.after
    assert (before > 1).tolist() == [client == BAD for client in range(5)] and found.verdicts.threshold == 1
    handed = {each.update.client: each for each in found.contributions}
    assert all(each.examples == 10 and each.corrected is None for client, each in handed.items() if client != BAD)
    wanted = {"reject": Action.REJECTED, "correct": Action.CORRECTED, "weight": Action.CORRECTED}[action]
    assert found.verdicts.actions.tolist() == [wanted if client == BAD else Action.ACCEPTED for client in range(5)]
    if action == "reject":
        assert BAD not in handed and np.isnan(after[BAD])
        return
    (verdict,) = [each for each in found.screened if each.node == BAD]
    mine = handed[BAD]
    if action == "weight":
        assert mine.examples == pytest.approx(10 * verdict.scale) and mine.corrected is None
        assert verdict.scale == pytest.approx(1 / before[BAD])
    else:
        assert mine.examples == 10 and after[BAD] <= 1
        for name, sent in mine.update.tensors().items():
            expected = start[name] + verdict.scale * (sent - start[name])
            assert torch.allclose(mine.corrected[name], expected, rtol=1e-4, atol=1e-5)


def test_a_correction_outlives_the_next_updates_measuring(in_mode: Build) -> None:
    """The screen has one net for all candidates: what it shortens is copied out of it."""
    run = in_mode("update", screening(action="correct", upper=1e-4))
    found = judged(run)
    corrected = [each.corrected for each in found.contributions if each.corrected is not None]
    assert len(corrected) == 5
    assert not any(same(first, second) for first, second in itertools.pairwise(corrected))


def test_judging_moves_nothing_and_learning_moves_the_net(in_mode: Build) -> None:
    run = in_mode("update")
    start = run.weights()
    found = judged(run)
    assert same(run.weights(), start) and run.server.version == 0
    run.server.learn(found)
    for name, tensor in floating(run.weights()).items():
        mean = torch.stack([message.state[name] for message in run.sent]).mean(0)
        assert torch.allclose(tensor, mean, atol=1e-6)
    assert run.server.version == 1


def test_whoever_is_taken_out_contributes_nothing(in_mode: Build) -> None:
    run = in_mode("update")
    found = judged(run)
    less = run.server.without(found, frozenset({1, 3}))
    assert [each.update.client for each in less.contributions] == [0, 2, 4]
    assert (less.verdicts.actions == Action.REJECTED).tolist() == [False, True, False, True, False]
    assert less.clients.tolist() == [0, 1, 2, 3, 4] and found.contributions != less.contributions
