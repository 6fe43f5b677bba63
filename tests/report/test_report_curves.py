import numpy as np
import pytest

from fedmd.report.figures.curves import (
    Curve,
    mean_precision_recall,
    mean_roc,
    operating_point,
    precision_recall_points,
    roc_points,
)
from fedmd.report.statistics.detection import sample_detection

NAN = float("nan")


def samples(seed):
    """60 scores with many ties, some unmeasured, and which are poisoned."""
    rng = np.random.default_rng(seed)
    poisoned = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + poisoned, 1)
    scores[rng.random(60) < 0.1] = NAN
    return scores, poisoned


def naive(scores, poisoned):
    """(fpr, tpr, precision) of `score >= t` for every distinct score t, from the highest down, by counting."""
    pairs = [(s, p) for s, p in zip(scores, poisoned, strict=True) if s == s]
    positives = sum(p for _, p in pairs)
    points = []
    for t in sorted({s for s, _ in pairs}, reverse=True):
        hits = sum(1 for s, p in pairs if s >= t and p)
        alarms = sum(1 for s, p in pairs if s >= t and not p)
        points.append((alarms / (len(pairs) - positives), hits / positives, hits / (hits + alarms)))
    return points


@pytest.mark.parametrize("seed", range(5))
def test_roc_against_counting(seed):
    scores, poisoned = samples(seed)
    curve = roc_points(scores, poisoned)
    expected = np.array([(0.0, 0.0, 1.0), *naive(scores, poisoned)])
    for x, y in zip(curve.x, curve.y, strict=True):
        assert np.isclose(expected[:, :2], (x, y)).all(1).any()
    area = np.trapezoid(curve.y, curve.x)
    assert area == pytest.approx(np.trapezoid(expected[:, 1], expected[:, 0]))
    assert area == pytest.approx(sample_detection(scores, poisoned)["auroc"])


@pytest.mark.parametrize("seed", range(5))
def test_precision_recall_against_counting(seed):
    scores, poisoned = samples(seed)
    curve = precision_recall_points(scores, poisoned)
    expected = np.array(naive(scores, poisoned))
    np.testing.assert_allclose(np.column_stack([curve.x, curve.y]), expected[: len(curve.x), 1:])
    assert curve.x[-1] == 1
    area = np.sum(np.diff(curve.x, prepend=0) * curve.y)
    assert area == pytest.approx(sample_detection(scores, poisoned)["average_precision"])


@pytest.mark.parametrize("points", [roc_points, precision_recall_points])
def test_no_curve_without_both_classes(points):
    assert points(np.array([1.0, 2.0]), np.array([True, True])) is None
    assert points(np.array([1.0, NAN]), np.array([False, True])) is None
    assert points(np.array([]), np.array([], bool)) is None


def test_the_operating_point_takes_each_sample_at_its_own_threshold():
    scores = np.array([1.0, 3.0, 3.0, 2.0, NAN, 9.0])
    thresholds = np.array([0.5, 2.0, 4.0, 2.0, 1.0, NAN])
    poisoned = np.array([True, False, False, True, True, True])
    point = operating_point(scores, thresholds, poisoned)
    assert (point.tpr, point.fpr, point.precision) == (0.5, 0.5, 0.5)
    assert operating_point(scores, np.full(6, NAN), poisoned) is None
    assert operating_point(scores, np.full(6, 99.0), poisoned).precision is None


def test_means_over_seeds():
    # the largest TPR with FPR <= x, and the precision at the smallest recall >= x
    first = Curve(np.array([0.0, 0.0, 0.5, 1.0]), np.array([0.0, 0.4, 0.8, 1.0]))
    second = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    roc = mean_roc([first, second])
    at = dict(zip(np.round(roc.x, 3), roc.y, strict=True))
    assert (at[0.0], at[0.25], at[0.5], at[1.0]) == pytest.approx((0.2, 0.2, 0.4, 1.0))
    steps = mean_precision_recall([Curve(np.array([0.5, 1.0]), np.array([1.0, 0.5]))])
    at = dict(zip(np.round(steps.x, 3), steps.y, strict=True))
    assert (at[0.0], at[0.5], at[0.505], at[1.0]) == pytest.approx((1.0, 1.0, 0.5, 0.5))
