"""From which score on a sample is suspicious: eqs (7) and (8) of the method, and a constant.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor

from fedmd.config import NonNegative, Section, Share
from fedmd.registry import Plugin, register_threshold

# What a `Threshold` is when it is called; any such function will do.
ThresholdFunction = Callable[[int, Callable[[], Tensor]], float]


class Threshold(Plugin):
    """A function `(step, trusted) -> score`, the largest that is not suspicious.

    `step` counts the online steps since burn-in; `trusted()` returns the detector's scores [n] (the discrepancy, in
    nats, unless a defence says otherwise) of the server's trusted samples under today's models, and is only called,
    and paid for, by the thresholds that need it.
    """

    @property
    def promised(self) -> float | None:
        """Which share of clean traffic it promises to call suspicious; None: it promises nothing."""
        return None

    @property
    def file(self) -> Path | None:
        """A file that it reads, so that a run which goes on with another content of it can be refused."""
        return None

    def prepare(self, run: Any, burn_in: Any) -> None:
        """Read what it needs for the run of the RunConfig `run`, which begins with the models of `burn_in`.

        Raises ConfigError where that is not to be had.
        """

    def __call__(self, step: int, trusted: Callable[[], Tensor]) -> float:
        """The threshold of this step; infinite: nothing is suspicious."""
        raise NotImplementedError


@register_threshold("published")
class Published(Threshold):
    """start + slope * step, eq (7): the published code's schedule.

    The published code counts *accumulative* rounds, which no server can know; `step` counts all online steps.
    """

    class Params(Section):
        """The schedule."""

        start: NonNegative = Field(0.5, description="nats")
        slope: NonNegative = Field(0.02, description="nats a step")

    params: Params

    def __call__(self, step: int, trusted: Callable[[], Tensor]) -> float:
        """Eq (7)."""
        return self.params.start + self.params.slope * step


@register_threshold("fixed")
class Fixed(Threshold):
    """The same number at every step."""

    class Params(Section):
        """The number."""

        value: NonNegative = Field(0.5, description="nats")

    params: Params

    def __call__(self, step: int, trusted: Callable[[], Tensor]) -> float:
        """The number."""
        return self.params.value


@register_threshold("quantile")
class Quantile(Threshold):
    """(1 - fpr) quantile of the discrepancy over the server's trusted set, every round; eq (8), an extension."""

    class Params(Section):
        """The promise."""

        fpr: Share = Field(0.05, description="share of clean traffic that lies above")

    params: Params

    @property
    def promised(self) -> float:
        """The share `fpr`."""
        return self.params.fpr

    def __call__(self, step: int, trusted: Callable[[], Tensor]) -> float:
        """Eq (8); infinite where a model has diverged, so that its scores are no numbers: a run must survive that."""
        scores = trusted()
        return conformal_quantile(scores, self.params.fpr) if bool(scores.isfinite().all()) else math.inf


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
