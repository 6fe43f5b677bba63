"""Robust limits against hand-computed numbers and the invariants that make them robust."""

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from fedmd.defense.updates.limits import (
    Limits,
    Past,
    as_threshold,
    fixed_threshold,
    robust_threshold,
    within_both,
)

DISCREPANCIES = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20)


def test_hand_computed() -> None:
    # logs 0 1 2 3 10: median 2, absolute deviations 2 1 0 1 8, MAD 1
    limits = robust_threshold([math.exp(v) for v in (0, 1, 2, 3, 10)], k=2)
    assert limits.lower == pytest.approx(math.exp(2 - 2 * 1.4826))
    assert limits.upper == pytest.approx(math.exp(2 + 2 * 1.4826))


@given(DISCREPANCIES)
def test_against_scipy(values: list[float]) -> None:
    spread = max(median_abs_deviation(np.log(values), scale="normal"), 0.05)
    limits = robust_threshold(values)
    assert math.log(limits.upper) == pytest.approx(np.median(np.log(values)) + 3.5 * spread, abs=2e-3)


@given(DISCREPANCIES, st.floats(0.5, 2))
def test_the_rule_has_no_unit(values: list[float], factor: float) -> None:
    one, other = robust_threshold(values), robust_threshold([factor * value for value in values])
    assert other.upper == pytest.approx(factor * one.upper, rel=1e-6)
    assert other.lower == pytest.approx(factor * one.lower, rel=1e-6, abs=1e-11)


@given(st.lists(st.floats(1, 2), min_size=5, max_size=5), st.lists(st.floats(1e-6, 1e6), min_size=4, max_size=4))
def test_a_minority_cannot_drag_the_upper_limit_past_what_the_majority_allows(
    honest: list[float], malicious: list[float]
) -> None:
    # with 5 of 9 in [1, 2] both the median and the MAD come from that interval
    limits = robust_threshold(honest + malicious)
    assert limits.upper <= 2 * math.exp(3.5 * max(1.4826 * math.log(2), 0.05)) * (1 + 1e-9)
    assert limits.lower <= 2


@pytest.mark.parametrize("values", [[0.3], [0.1, 50.0], [0.0, 0.0, 0.0], [1.0, 1.1, 1.0, 1.0]])
def test_few_or_agreeing_clients_have_no_outlier(values: list[float]) -> None:
    limits = robust_threshold(values)
    assert all(limits.lower <= value <= limits.upper for value in values)


def test_ends() -> None:
    assert robust_threshold([]) == Limits(0.0, math.inf)
    assert robust_threshold([1.0, 2.0, 3.0], tails="upper").lower == 0
    assert as_threshold(0.5)([9.0]) == Limits(0.0, 0.5)
    assert as_threshold(partial(fixed_threshold, lower=0.1, upper=0.2))([]) == Limits(0.1, 0.2)
    with pytest.raises(ValueError, match="threshold"):
        as_threshold(math.nan)


def test_the_past_limits_rounds_without_peers() -> None:
    past = Past(quantile=0.5, factor=3.0, warm_up=3, peers=2)
    for values in ([(0.1, 2.0)], [(0.4, 1.0), (0.2, 1.5)], []):  # the largest of a round counts; nobody: no round
        past.note(values)
    assert past.limits(1) is None
    past.note([(0.3, 1.0)])
    assert past.limits(1) == pytest.approx((0.9, 4.5))  # medians of 0.1 0.4 0.3 and 2.0 1.5 1.0
    assert past.limits(2) is None


def test_the_past_is_remembered_up_to_a_bound_and_saved() -> None:
    past = Past(quantile=1.0, factor=2.0, warm_up=1, peers=None, memory=2)
    for value in (9.0, 1.0, 0.5):
        past.note([(value,)])
    assert past.limits(50) == pytest.approx((2.0,))
    other = Past(quantile=1.0, factor=2.0, warm_up=1, peers=None, memory=2)
    other.restore(past.save())
    assert other.limits(50) == past.limits(50)


@given(st.lists(st.floats(1e-6, 1e3), min_size=5, max_size=60))
def test_the_past_against_numpy(values: list[float]) -> None:
    past = Past(quantile=0.9, factor=4.0)
    for value in values:
        past.note([(value,)])
    assert past.limits(1) == pytest.approx((4 * np.quantile(values, 0.9),))


def test_both_limits_hold() -> None:
    limits = (Limits(0.1, 5.0), Limits(0.0, 1.0))
    assert within_both(limits, None) == limits
    assert within_both(limits, (2.0, 3.0)) == (Limits(0.1, 2.0), Limits(0.0, 1.0))
