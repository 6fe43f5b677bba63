"""Tolerance limits against tables, against simulation, and against counting by hand."""

import math

import numpy as np
import pytest

from fedmd.defense.calibration import limits, needed, tolerance_limit


@pytest.mark.parametrize(
    ("fpr", "confidence", "n"), [(0.05, 0.95, 59), (0.1, 0.95, 29), (0.1, 0.9, 22), (0.01, 0.99, 459), (0.05, 0.99, 90)]
)
def test_least_sample_sizes_are_those_of_wilks_table(fpr: float, confidence: float, n: int) -> None:
    assert needed(fpr, confidence) == n
    assert tolerance_limit(np.arange(float(n)), fpr, confidence) == n - 1  # the largest of them
    assert tolerance_limit(np.arange(n - 1.0), fpr, confidence) == math.inf


def test_second_largest_from_ninety_three_on() -> None:
    """The published rank table for 95 % / 95 %: the maximum serves up to n = 92, the second largest from 93 on."""
    assert tolerance_limit(np.arange(92.0), 0.05, 0.95) == 91
    assert tolerance_limit(np.arange(93.0), 0.05, 0.95) == 91


def test_the_promise_holds_as_often_as_promised() -> None:
    """Of 4,000 uniform samples of 100, at least 90 % give a limit that at most a tenth of the population exceeds."""
    rng = np.random.default_rng(0)
    found = np.array([tolerance_limit(rng.random(100), 0.1, 0.9) for _ in range(4000)])
    kept = np.mean(1 - found <= 0.1)
    assert 0.9 - 0.015 < kept < 0.95  # discreteness gives a little more than asked for
    assert np.mean(1 - np.quantile([rng.random(100) for _ in range(4000)], 0.9, axis=1) <= 0.1) < 0.65  # the quantile


def test_windows_take_the_neighbouring_steps() -> None:
    scores = [np.full(100, float(step)) for step in range(6)]
    by_step = limits(scores, fpr=0.1, confidence=0.9, window=1)
    assert [limit.tolerance for limit in by_step] == [1, 2, 3, 4, 5, 5]
    assert [limit.n for limit in by_step] == [200, 300, 300, 300, 300, 200]
    (single,) = limits(scores, fpr=0.1, confidence=0.9, window=None)
    assert (single.tolerance, single.quantile, single.n) == (5, 5, 600)


@pytest.mark.parametrize("scores", [np.arange(10.0), np.full(100, np.inf), np.array([])])
def test_too_little_to_promise_anything(scores: np.ndarray) -> None:
    with pytest.raises(ValueError, match="22 are needed"):
        limits([scores], fpr=0.1, confidence=0.9, window=None)
