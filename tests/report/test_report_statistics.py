import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmd.report.statistics.intervals import kept_gain, mean_interval, subtract

T_975 = {1: 12.706205, 2: 4.302653, 4: 2.776445}  # a printed table of Student's t


def test_interval_by_hand():
    # deviations -1, 0, 1: s = 1, half width 4.302653 / √3
    result = mean_interval([1.0, 2.0, 3.0])
    assert (result["mean"], result["n"], result["values"]) == (2.0, 3, [1.0, 2.0, 3.0])
    assert result["ci95"] == pytest.approx(2.484138, abs=1e-6)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_against_the_formula(n):
    values = np.random.default_rng(n).normal(size=n).tolist()
    mean = sum(values) / n
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    assert mean_interval(values)["ci95"] == pytest.approx(T_975[n - 1] * spread / math.sqrt(n), rel=1e-6)


def test_missing_values_stay_visible_and_do_not_count():
    result = mean_interval([None, 1.0, float("nan"), 3.0])
    assert (result["mean"], result["n"], result["values"]) == (2.0, 2, [None, 1.0, None, 3.0])
    assert result["ci95"] == pytest.approx(T_975[1])
    assert mean_interval([0.5, None]) == {"mean": 0.5, "ci95": None, "n": 1, "values": [0.5, None]}
    assert mean_interval([]) == {"mean": None, "ci95": None, "n": 0, "values": []}
    assert mean_interval([None]) == {"mean": None, "ci95": None, "n": 0, "values": [None]}


def test_differences_are_paired():
    assert subtract([3.0, None, 1.0], [1.0, 1.0, None]) == [2.0, None, None]


def test_kept_gain_is_a_ratio_of_means():
    result = kept_gain([0.9, 0.8], [0.7, 0.7], [1.0, 0.8])  # kept 0.2, 0.1 of 0.3, 0.1
    assert result["mean"] == pytest.approx(0.15 / 0.2)
    assert result["values"] == pytest.approx([2 / 3, 1.0])
    # residuals 0.2 - 0.75·0.3 = -0.025 and 0.1 - 0.75·0.1 = 0.025: s = 0.025·√2
    assert result["ci95"] == pytest.approx(T_975[1] * 0.025 / 0.2, rel=1e-6)
    assert result["n"] == 2


def test_kept_gain_without_a_gain_is_null():
    assert kept_gain([0.9], [0.8], [0.8]) == {"mean": None, "ci95": None, "n": 0, "values": [None]}
    assert kept_gain([None], [0.8], [0.9]) == {"mean": None, "ci95": None, "n": 0, "values": [None]}
    mixed = kept_gain([0.9, 0.75], [0.5, 0.75], [0.9, 0.7])  # the second seed gains nothing, but counts in the means
    assert mixed["values"] == [1.0, None]
    assert mixed["mean"] == pytest.approx(0.4 / 0.35)


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0.6, 1)), min_size=2, max_size=6))
def test_the_anchors_keep_nothing_and_everything(seeds):
    floor, ceiling = [a for a, _ in seeds], [b for _, b in seeds]
    for arm, share in ((floor, 0.0), (ceiling, 1.0)):
        result = kept_gain(arm, floor, ceiling)
        assert result["mean"] == pytest.approx(share)
        assert result["ci95"] == pytest.approx(0.0, abs=1e-12)
