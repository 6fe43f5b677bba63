"""Thresholds against a naive reading of their definitions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.config import ThresholdConfig
from fedmd.defense.samples.thresholds import Threshold, conformal_quantile

derandomised = settings(deadline=None, derandomize=True)
SCORES = st.lists(st.floats(0, 50, width=32), min_size=1, max_size=40)


def threshold(name: str, **settings: float) -> Threshold:
    made: Threshold = ThresholdConfig.model_validate({"name": name, **settings}).make()
    return made


def never() -> torch.Tensor:
    pytest.fail("the trusted set was measured, and paid for, without need")


@derandomised
@given(scores=SCORES, thousandths=st.integers(0, 1000))
def test_against_the_smallest_score_that_enough_others_do_not_exceed(scores: list[float], thousandths: int) -> None:
    """Naive split-conformal: the smallest candidate c with #{scores <= c} >= (n + 1)(1 - fpr), else infinity."""
    needed = (len(scores) + 1) * (1 - Fraction(thousandths, 1000))
    enough = [c for c in [0.0, *scores] if sum(s <= c for s in scores) >= needed]
    expected = 0.0 if needed <= 0 else min(enough, default=math.inf)
    assert conformal_quantile(torch.tensor(scores), thousandths / 1000) == expected


@pytest.mark.parametrize(
    ("n", "fpr", "k"),
    [
        (9, 0.1, 9),
        (9, 0.5, 5),
        (19, 0.05, 19),
        (99, 0.05, 95),
        (100, 0.05, 96),
        (200, 0.3, 141),
        (200, 0.1, 181),
        (9, 0.7, 3),
    ],
)
def test_by_hand(n: int, fpr: float, k: int) -> None:
    scores = torch.arange(1.0, n + 1)[torch.randperm(n, generator=torch.Generator().manual_seed(n))]
    assert conformal_quantile(scores, fpr) == k


def test_too_few_scores_for_the_promise_give_infinity() -> None:
    assert conformal_quantile(torch.ones(18), 0.05) == math.inf
    assert conformal_quantile(torch.ones(19), 0.05) == 1
    assert conformal_quantile(torch.ones(1000), 0.0) == math.inf
    assert conformal_quantile(torch.ones(3), 1.0) == 0


@pytest.mark.parametrize("fpr", [0.05, 0.1, 0.3])
def test_coverage(fpr: float) -> None:
    """A fresh exchangeable score exceeds the threshold with probability at most fpr, and not much less.

    4,000 repetitions: the standard error of the share is at most sqrt(.3 * .7 / 4000) = 0.0072; four of them.
    """
    n = 30
    draws = np.random.default_rng(0).lognormal(size=(4000, n + 1))
    exceeded = [row[-1] > conformal_quantile(torch.from_numpy(row[:-1]), fpr) for row in draws]
    exact = 1 - math.ceil(round((n + 1) * (1 - fpr), 9)) / (n + 1)  # for continuous scores
    assert exact <= fpr
    assert abs(np.mean(exceeded) - exact) < 0.029


def test_any_shape_counts_as_one_sample() -> None:
    scores = torch.arange(20.0)
    assert conformal_quantile(scores.view(4, 5), 0.2) == conformal_quantile(scores, 0.2)


@pytest.mark.parametrize("scores", [torch.empty(0), torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])])
def test_bad_scores(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="non-empty tensor of finite numbers"):
        conformal_quantile(scores, 0.1)


@pytest.mark.parametrize("fpr", [-0.01, 1.01, math.nan])
def test_bad_fpr(fpr: float) -> None:
    with pytest.raises(ValueError, match="fpr must be between 0 and 1"):
        conformal_quantile(torch.ones(3), fpr)


def test_published_schedule() -> None:
    """T_t = 0.5 + 0.02 t, eq (7)."""
    assert [threshold("published")(t, never) for t in (0, 1, 25, 100)] == pytest.approx([0.5, 0.52, 1.0, 2.5])
    assert threshold("published", start=1.0, slope=0.1)(10, never) == pytest.approx(2.0)


def test_fixed() -> None:
    assert [threshold("fixed", value=0.3)(t, never) for t in (0, 100)] == [0.3, 0.3]


def test_quantile_is_measured_anew_at_every_step() -> None:
    moving = [torch.arange(1.0, 20.0), torch.arange(1.0, 20.0) * 2]
    rule = threshold("quantile", fpr=0.5)
    assert [rule(t, lambda t=t: moving[t]) for t in (0, 1)] == [10, 20]  # type: ignore[misc]


def test_a_diverged_model_has_no_threshold_but_a_run() -> None:
    assert threshold("quantile")(3, lambda: torch.full((50,), math.nan)) == math.inf


def test_only_the_quantile_promises_a_share() -> None:
    assert threshold("quantile", fpr=0.2).promised == 0.2
    assert threshold("fixed").promised is None and threshold("published").promised is None
