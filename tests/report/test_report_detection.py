"""Detection quality against counting, without scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmd.report.statistics.detection import client_detection, sample_detection

NAN, INF = float("nan"), float("inf")
scored = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 3.0, INF]), st.booleans()), max_size=60)


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
