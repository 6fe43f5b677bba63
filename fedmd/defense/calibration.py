"""Thresholds from a clean run: how high honest traffic scores, with a promise on how much of it lies above.

An extension: [MD23]'s threshold (7) is a schedule of constants, ours (8) follows the trusted set at every step. This
one is measured once, on the operator's own clean stream, and then stays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Limit:
    """A threshold in nats for one step, from n clean scores: their (1 - fpr) quantile, and the tolerance limit."""

    quantile: float
    tolerance: float
    n: int


def tolerance_limit(scores: Scores, fpr: float, confidence: float) -> float:
    """The smallest order statistic that at most `fpr` of clean traffic exceeds, with this `confidence`.

    S. S. Wilks (Ann. Math. Statist. 12, 1941): for n independent scores [n] of a continuous distribution, X_(k) is a
    one-sided (1 - fpr, confidence) tolerance limit iff P(Binomial(n, 1 - fpr) <= k - 1) >= confidence. Scores of one
    round share its models, so for a stream the promise is approximate. Infinite when n is too small for any k.
    """
    from scipy.stats import binom

    n = len(scores)
    k = int(binom.ppf(confidence, n, 1 - fpr)) + 1
    return float(np.sort(scores)[k - 1]) if k <= n else math.inf


def limits(scores: Sequence[Scores], *, fpr: float, confidence: float, window: int | None) -> list[Limit]:
    """A limit for every step t, from the scores of the steps t - window to t + window; None: one from all of them.

    `scores[t]` are the clean scores of step t, as they are held against the threshold (pooled).

    Raises ValueError when a limit is infinite: too few scores for what is asked, or a model that has diverged.
    """
    if window is None:
        return [_limit(np.concatenate(scores), fpr, confidence)]
    near = (scores[max(0, step - window) : step + window + 1] for step in range(len(scores)))
    return [_limit(np.concatenate(list(group)), fpr, confidence) for group in near]


def needed(fpr: float, confidence: float) -> int:
    """The least number of scores with a finite tolerance limit: n with (1 - fpr)^n <= 1 - confidence."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - fpr))


def _limit(scores: Scores, fpr: float, confidence: float) -> Limit:
    tolerance = tolerance_limit(scores, fpr, confidence)
    if not math.isfinite(tolerance):
        raise ValueError(
            f"{len(scores)} clean scores are too few (or not finite) for fpr={fpr:g} with confidence {confidence:g}: "
            f"{needed(fpr, confidence)} are needed for each threshold"
        )
    return Limit(float(np.quantile(scores, 1 - fpr, method="higher")), tolerance, len(scores))
