"""From which discrepancy on a client's update is suspicious: an outlier among its round, or a number.

A threshold is a function of the round's discrepancies (finite, nats, one per client that answered) that returns nats;
an update above it is acted upon.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

UpdateThreshold = Callable[[Sequence[float]], float]

_NORMAL = 1.4826  # a normal sample's standard deviation is 1.4826 times its median absolute deviation (MAD)
_SMALLEST = 1e-12  # nats; the logarithm of a discrepancy that rounds to zero


def robust_threshold(discrepancies: Sequence[float], *, k: float = 3.0, floor: float = 0.1) -> float:
    """exp(m + k · max(1.4826 · MAD, floor)), m and MAD the median and the MAD of log D over the round's clients.

    An extension of ours: the usual robust outlier rule (Hampel's) on the *logarithm*, because D is positive and heavy-
    tailed: honest clients differ by factors, not by nats, and the rule must not depend on how far a round moves the
    model. As the spread is the round's own, clients with very different data (non-IID) widen it by themselves; as both
    numbers are medians, fewer than half of the clients cannot drag them. `floor`, in units of log D, keeps clients that
    nearly agree (MAD -> 0) from being outliers: within exp(k · floor) of the median nobody is. One-sided: a small D is
    a client that changes nothing, which costs a round some progress and no accuracy. With fewer than three clients
    nobody is an outlier, whatever the numbers, if k >= 1. Infinite when nobody answered.
    """
    if len(discrepancies) == 0:
        return math.inf
    logs = np.log(np.maximum(np.asarray(discrepancies, dtype=np.float64), _SMALLEST))
    middle = float(np.median(logs))
    spread = _NORMAL * float(np.median(np.abs(logs - middle)))
    return math.exp(middle + k * max(spread, floor))


def fixed_threshold(discrepancies: Sequence[float], *, value: float) -> float:
    """The same number of nats in every round, e.g. `conformal_quantile` of a rehearsal's honest updates."""
    return value


def as_threshold(threshold: float | UpdateThreshold) -> UpdateThreshold:
    """A number as a fixed threshold, a function as it is. Raises ValueError for NaN."""
    if callable(threshold):
        return threshold
    if math.isnan(threshold):
        raise ValueError("threshold must be a number of nats or a function of the round's discrepancies, got nan")
    return partial(fixed_threshold, value=float(threshold))
