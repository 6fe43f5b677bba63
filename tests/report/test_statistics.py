"""Intervals against the formula, detection against counting and scikit-learn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics

from fedmd.report.figures.curves import roc_points
from fedmd.report.statistics.detection import client_detection, sample_detection
from fedmd.report.statistics.intervals import kept_gain, mean_interval, paired_intervals, subtract

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


def test_paired_intervals_are_cut_where_no_difference_can_lie():
    # ± 12.706205 · 0.05 around 0.6, as by hand
    (wide,) = paired_intervals([[0.55, 0.65]], limit=1.0)
    assert (wide["mean"], wide["low"], wide["high"]) == (pytest.approx(0.6), pytest.approx(-0.03531025), 1.0)
    (uncut,) = paired_intervals([[0.55, 0.65]])
    assert uncut["high"] == pytest.approx(1.23531025)
    assert uncut["bootstrap"] == {"low": None, "high": None}  # of two seeds there is nothing to resample
    (alone,) = paired_intervals([[0.5, None]])
    assert (alone["low"], alone["high"], alone["n"], alone["values"]) == (None, None, 1, [0.5, None])


def test_the_bootstrap_against_a_loop_over_resamples():
    """BCa by its definition (Efron 1987): percentiles at Φ(z₀ + (z₀ + z) / (1 - a (z₀ + z)))."""
    data = [0.01, 0.02, 0.02, 0.05, 0.40]
    found, degenerate, missing = (
        each["bootstrap"] for each in paired_intervals([data, [0.1] * 5, [*data[:2], None, *data[2:4]]])
    )
    rng = np.random.default_rng(1)
    means = np.sort([np.mean(rng.choice(data, 5)) for _ in range(20_000)])
    mean = np.mean(data)
    z0 = norm.ppf(np.mean(means < mean) + np.mean(means == mean) / 2)
    left_out = np.array([np.mean(np.delete(data, i)) for i in range(5)])
    away = left_out.mean() - left_out
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    expected = [
        np.quantile(means, norm.cdf(z0 + (z0 + z) / (1 - a * (z0 + z)))) for z in (norm.ppf(0.025), norm.ppf(0.975))
    ]
    assert (found["low"], found["high"]) == pytest.approx(expected, abs=0.02)
    assert found["high"] - mean > mean - found["low"]  # it leans to where the tail is
    assert degenerate == {"low": pytest.approx(0.1), "high": pytest.approx(0.1)}
    assert 0.01 <= missing["low"] < missing["high"] <= 0.05


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


NAN, INF = float("nan"), float("inf")
scored = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 3.0, INF]), st.booleans()), max_size=60)


@given(st.integers(0, 2**32 - 1))
def test_the_numbers_of_scikit_learn(seed):
    randomness = np.random.default_rng(seed)
    n = randomness.integers(2, 60)
    scores, poisoned = randomness.integers(0, 12, n) / 8, randomness.random(n) < 0.4
    poisoned[:2] = True, False
    found = sample_detection(scores, poisoned)
    assert found["auroc"] == metrics.roc_auc_score(poisoned, scores)
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(poisoned, scores), abs=1e-12)
    fpr, tpr, _ = metrics.roc_curve(poisoned, scores)
    assert np.array_equal(roc_points(scores, poisoned).x, fpr)
    assert np.array_equal(roc_points(scores, poisoned).y, tpr)


def auroc_by_pairs(poisoned, clean):
    wins = sum((p > c) + 0.5 * (p == c) for p in poisoned for c in clean)
    return wins / (len(poisoned) * len(clean))


def tpr_by_threshold(poisoned, clean):
    best = 0.0
    for threshold in [*poisoned, *clean]:
        if sum(c >= threshold for c in clean) / len(clean) <= 0.05:
            best = max(best, sum(p >= threshold for p in poisoned) / len(poisoned))
    return best


def average_precision_by_threshold(poisoned, clean):
    total, recall = 0.0, 0.0
    for threshold in sorted({*poisoned, *clean}, reverse=True):
        hits, alarms = sum(p >= threshold for p in poisoned), sum(c >= threshold for c in clean)
        total += (hits / len(poisoned) - recall) * hits / (hits + alarms)
        recall = hits / len(poisoned)
    return total


def check(scores, flags):
    result = sample_detection(np.array(scores, np.float64), np.array(flags, bool))
    poisoned = [s for s, flag in zip(scores, flags, strict=True) if flag]
    clean = [s for s, flag in zip(scores, flags, strict=True) if not flag]
    assert (result["n_poisoned"], result["n_clean"]) == (len(poisoned), len(clean))
    if not poisoned or not clean:
        assert result["auroc"] is result["average_precision"] is result["tpr_at_fpr_05"] is None
        return
    assert result["auroc"] == pytest.approx(auroc_by_pairs(poisoned, clean))
    assert result["average_precision"] == pytest.approx(average_precision_by_threshold(poisoned, clean))
    assert result["tpr_at_fpr_05"] == pytest.approx(tpr_by_threshold(poisoned, clean))


@given(scored)
def test_against_counting_with_ties(samples):
    check([score for score, _ in samples], [flag for _, flag in samples])


def test_against_counting_at_size():
    generator = np.random.default_rng(0)
    flags = generator.random(400) < 0.3
    check(generator.normal(size=400) + flags, flags)


def test_a_false_positive_rate_of_exactly_five_percent_counts():
    clean, poisoned = [*([0.0] * 19), 1.0], [0.5, 1.5]
    scores, flags = np.array(clean + poisoned), np.array([False] * 20 + [True] * 2)
    assert sample_detection(scores, flags)["tpr_at_fpr_05"] == 1.0  # threshold 0.5: one clean of 20


def test_what_differs_by_rounding_is_a_tie():
    """An update that is alone in its round always has the same score, up to the last digit."""
    scores = np.array([0.839457, 0.839457 * (1 + 1e-15), 0.839457 * (1 - 1e-15), 1e300])
    assert sample_detection(scores, np.array([False, True, True, True]))["auroc"] == pytest.approx((0.5 + 0.5 + 1) / 3)


def test_known_answers_and_unmeasured_samples():
    scores = np.array([0.1, 0.4, NAN, 0.3, 0.9, NAN])
    flags = np.array([False, False, False, True, True, True])
    result = sample_detection(scores, flags)
    assert (result["auroc"], result["n_poisoned"], result["n_clean"]) == (0.75, 2, 2)
    assert result["tpr_at_fpr_05"] == 0.5
    assert result["average_precision"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_clients_by_mean_score():
    clients = np.array([0, 0, 1, 1, 2, 2, 7])
    scores = np.array([0.1, 0.3, 0.0, 0.9, 0.3, 0.3, NAN])  # means 0.2, 0.45, 0.3; client 7 unmeasured
    assert client_detection(scores, clients, (1,)) == {"auroc": 1.0}
    assert client_detection(scores, clients, (2,)) == {"auroc": 0.5}
    assert client_detection(scores, clients, (0,)) == {"auroc": 0.0}
    assert client_detection(scores, clients, (7,)) == {"auroc": None}
    assert client_detection(scores, clients, ()) == {"auroc": None}
    assert client_detection(np.array([]), np.array([], np.int64), (1,)) == {"auroc": None}
