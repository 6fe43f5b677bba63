"""From which score on a sample is suspicious: eqs (7) and (8) of the method, and a constant.

A threshold is a function `(step, trusted) -> nats`. `step` counts the online steps since burn-in; `trusted()`
returns the detector's score [n] (the discrepancy, unless a defence says otherwise) of the server's trusted samples
under today's models, and is only called, and paid for, by the thresholds that need it.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor

from fedmd.config import ThresholdConfig

Threshold = Callable[[int, Callable[[], Tensor]], float]


def published_threshold(
    step: int, trusted: Callable[[], Tensor] | None = None, *, start: float = 0.5, slope: float = 0.02
) -> float:
    """Eq (7) of [MD23]'s code: start + slope * step, in nats.

    The published code counts *accumulative* rounds, which no server can know; `step` counts all online steps.
    """
    return start + slope * step


def fixed_threshold(step: int, trusted: Callable[[], Tensor] | None = None, *, value: float) -> float:
    """The same number of nats at every step."""
    return value


def quantile_threshold(step: int, trusted: Callable[[], Tensor], *, fpr: float) -> float:
    """Eq (8), an extension of ours: the (1 - fpr) quantile of the trusted set's discrepancy at this step.

    Infinite where a model has diverged, so that its discrepancy is no number: a run must survive its attackers.
    """
    scores = trusted()
    return conformal_quantile(scores, fpr) if bool(scores.isfinite().all()) else math.inf


def conformal_quantile(scores: Tensor, fpr: float) -> float:
    """The k-th smallest of `scores` [n], k = ceil((n + 1)(1 - fpr)): split-conformal for finite n.

    A fresh score exchangeable with these exceeds it with probability at most `fpr`. Infinite when n is too small
    for the promise (k > n); 0, which no discrepancy is below, for fpr = 1. Raises ValueError on an empty or
    non-finite sample and for `fpr` outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"fpr must be between 0 and 1, got {fpr}")
    if scores.numel() == 0 or not bool(scores.isfinite().all()):
        raise ValueError("scores must be a non-empty tensor of finite numbers")
    n = scores.numel()
    k = math.ceil(round((n + 1) * (1 - fpr), 9))  # the round keeps 0.1 * 10 from becoming 2
    if k > n:
        return math.inf
    return float(scores.flatten().kthvalue(k).values) if k >= 1 else 0.0


def build_threshold(config: ThresholdConfig) -> Threshold:
    """The threshold a configuration asks for."""
    thresholds: dict[str, Threshold] = {
        "published": partial(published_threshold, start=config.start, slope=config.slope),
        "quantile": partial(quantile_threshold, fpr=config.fpr),
        "fixed": partial(fixed_threshold, value=config.value),
    }
    return thresholds[config.name]
