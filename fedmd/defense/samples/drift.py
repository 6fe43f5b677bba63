"""Whether the share of samples above a calibrated threshold is the share it was calibrated for, eq (8)'s warning.

An extension of ours, like the threshold. If what arrives is exchangeable with the trusted set, the number of alarms
among N judgements is known in advance, the trusted set's own finite size included:

    X ~ BetaBinomial(N, fpr (n + 1), (1 - fpr)(n + 1))

(for conformal quantiles of n calibration scores see Vovk, Conditional Validity of Inductive Conformal Predictors,
2012). A plain binomial would take the chance error of one trusted set, which stays for the whole run, for drift.
"""

import math
from collections import deque
from math import lgamma
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedmd.types import Drift

ROUNDS = 10
ALPHA = 1e-4  # of one window of exchangeable traffic; a run has as many windows as rounds


def drift(alarms: int, judged: int, *, promised: float, calibration: float) -> Drift | None:
    """`alarms` of `judged` against the share `promised` by `calibration` trusted scores; None while they agree.

    Two-sided, at most ALPHA in all: too many alarms mean an attack or a stream that has moved away, too few a
    threshold that has. A share of 0 or 1 is no promise that chance could break.
    """
    if judged == 0 or calibration <= 0 or not 0 < promised < 1:
        return None
    expected = _beta_binomial(judged, promised * (calibration + 1), (1 - promised) * (calibration + 1))
    tail = min(expected[alarms:].sum(), expected[: alarms + 1].sum())
    return Drift(alarms / judged, promised) if 2 * tail < ALPHA else None


def _beta_binomial(n: int, a: float, b: float) -> NDArray[np.float64]:
    """P(X = k) for k = 0 to n: C(n, k) B(k + a, n - k + b) / B(a, b). SciPy has it, and takes a second to import."""

    def log_beta(a: float, b: float) -> float:
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    logs = [log_beta(k + a, n - k + b) - log_beta(k + 1, n - k + 1) for k in range(n + 1)]
    return np.exp(np.array(logs) - log_beta(a, b) - math.log(n + 1))


def pooled_calibration(trusted: int, message: float, promised: float) -> float:
    """How many calibration scores `trusted` samples are worth to means over `message` samples, by normal theory.

    The quantile of a mean is off by what the trusted mean is off, a standard deviation of √(message / trusted) of the
    mean's own; so the realised rate has variance φ(z)² message / trusted with z its quantile, and a beta distribution
    of n scores has about p(1 - p) / n. Means of very skewed scores err more (a few false warnings in a hundred runs of
    log-normal ones). Single samples have no use for this: for them n is `trusted`, exactly.
    """
    normal = NormalDist()
    density = normal.pdf(normal.inv_cdf(1 - promised))
    return promised * (1 - promised) / density**2 * trusted / message if density > 0 else 0.0


class DriftMonitor:
    """`drift` over the latest ROUNDS rounds. `trusted` is the number of samples behind the threshold.

    Judgements are counted by what is judged as a whole: where that is a mean over a message, its samples share one
    verdict and count once.
    """

    def __init__(self, promised: float, trusted: int) -> None:
        self._promised = promised
        self._trusted = trusted
        self._rounds: deque[tuple[int, int, int]] = deque(maxlen=ROUNDS)

    def observe(self, alarms: int, judged: int, samples: int) -> Drift | None:
        """One more round: `alarms` among `judged` judgements on `samples` samples."""
        self._rounds.append((alarms, judged, samples))
        alarms, judged, samples = (sum(column) for column in zip(*self._rounds, strict=True))
        calibration: float = self._trusted
        if 0 < judged < samples:
            calibration = pooled_calibration(self._trusted, samples / judged, self._promised)
        return drift(alarms, judged, promised=self._promised, calibration=calibration)

    def state(self) -> list[list[int]]:
        """The latest rounds: alarms, judgements and samples of each."""
        return [list(row) for row in self._rounds]

    def restore(self, rounds: list[list[int]]) -> None:
        """Put back what `state` returned."""
        self._rounds = deque(((alarms, judged, samples) for alarms, judged, samples in rounds), maxlen=ROUNDS)
