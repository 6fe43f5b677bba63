"""Between which discrepancies a client's update is unsuspicious: no outlier of its round, or within fixed limits.

A threshold is a function of the round's discrepancies (finite, nats, one per client that answered) that returns
`Limits`; an update outside of them is acted upon. Where a round has too few clients to be outliers among, `Past` has
limits from earlier rounds.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from fedmd.storage import Saved


@dataclass(frozen=True)
class Limits:
    """`lower` <= D <= `upper` is unsuspicious; nats, both ends included."""

    lower: float
    upper: float


UpdateThreshold = Callable[[Sequence[float]], Limits]
Tails = Literal["both", "upper"]

_NORMAL = 1.4826  # a normal sample's standard deviation is 1.4826 times its median absolute deviation (MAD)
_SMALLEST = 1e-12  # nats; for the logarithm of a discrepancy that rounds to zero


def robust_threshold(
    discrepancies: Sequence[float], *, k: float = 3.5, floor: float = 0.05, tails: Tails = "both"
) -> Limits:
    """exp(m ± k · max(1.4826 · MAD, floor)), m and MAD the median and the MAD of log D over the round's clients.

    An extension of ours: the modified z-score with its usual cut-off of 3.5 (Iglewicz and Hoaglin, How to Detect and
    Handle Outliers, 1993), on the *logarithm*: honest clients differ by factors, not by nats, so the rule does not
    depend on how far a round moves the model. Clients with very different data (non-IID) widen the spread by
    themselves, and fewer than half of the clients cannot drag two medians at will. `floor`, in units of log D, keeps
    clients that nearly agree (MAD -> 0) from being outliers.

    Both tails by default, because the sign of the effect depends on the attack: what tears the model away (replacement,
    accumulative) has a large discrepancy, what holds it where it was (free riders, inner-product manipulation, noise,
    ALIE, Min-Max, flipped labels) stays closer to the historical model than honest progress does. With one or two
    clients nobody is an outlier. (0, inf) when nobody answered.
    """
    if len(discrepancies) == 0:
        return Limits(0.0, math.inf)
    logs = np.log(np.maximum(np.asarray(discrepancies, dtype=np.float64), _SMALLEST))
    middle = float(np.median(logs))
    reach = k * max(_NORMAL * float(np.median(np.abs(logs - middle))), floor)
    lower = math.exp(middle - reach) if tails == "both" and middle - reach > math.log(_SMALLEST) else 0.0
    return Limits(lower, math.exp(min(middle + reach, 700.0)))  # e^700 is close to the largest float


def fixed_threshold(discrepancies: Sequence[float], *, upper: float, lower: float = 0.0) -> Limits:
    """The same limits in every round, e.g. `conformal_quantile` of the honest updates of a rehearsal."""
    return Limits(lower, upper)


def as_threshold(threshold: float | UpdateThreshold) -> UpdateThreshold:
    """A number of nats as a fixed upper limit, a function as it is. Raises ValueError for NaN."""
    if callable(threshold):
        return threshold
    if math.isnan(threshold):
        raise ValueError("threshold must be a number of nats or a function of the round's discrepancies, got nan")
    return partial(fixed_threshold, upper=float(threshold))


class Past:
    """Limits from the run's own past: `factor` times the `quantile` of the largest value accepted in earlier rounds.

    An extension of ours, for rounds in which attackers are many or alone: their own median is no reference, and with
    one or two clients nobody is an outlier of `robust_threshold`. A high quantile over all rounds remembered, rather
    than over the latest, because an attacker who accumulates sends hundreds of updates of nearly no discrepancy, after
    which the latest would call every honest update an outlier. Nothing is limited before `warm_up` rounds.

    What was acted upon is not remembered, so one rejected update does not raise the limit for the next. An attacker who
    grows by less than `factor` each time does, round by round; a fixed threshold is for that.

    Args:
        quantile: of the rounds' largest accepted values, in (0, 1].
        factor: > 1; honest discrepancies differ from round to round by factors, not by nats.
        warm_up: rounds with accepted updates before there are limits.
        peers: rounds with at least so many measured updates are judged by their own median alone; None: by both.
        memory: rounds that are remembered at most.
    """

    def __init__(
        self,
        *,
        quantile: float = 0.95,
        factor: float = 5.0,
        warm_up: int = 5,
        peers: int | None = None,
        memory: int = 1000,
    ) -> None:
        self._quantile, self._factor, self._warm_up, self._peers = quantile, factor, warm_up, peers
        self._rounds: deque[tuple[float, ...]] = deque(maxlen=memory)

    def limits(self, updates: int) -> tuple[float, ...] | None:
        """The upper limit of each measured quantity in a round of `updates`; None where the past does not count."""
        if len(self._rounds) < self._warm_up or (self._peers is not None and updates >= self._peers):
            return None
        return tuple(self._factor * np.quantile(np.asarray(self._rounds), self._quantile, axis=0))

    def note(self, accepted: Sequence[Sequence[float]]) -> None:
        """Remember a round by the values of its accepted updates, one sequence an update."""
        if accepted:
            self._rounds.append(tuple(max(column) for column in zip(*accepted, strict=True)))

    def save(self) -> Saved:
        """What `restore` needs to go on from here."""
        return {"rounds": [list(values) for values in self._rounds]}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self._rounds.clear()
        self._rounds.extend(tuple(values) for values in saved["rounds"])


def within_both(limits: Sequence[Limits], past: Sequence[float] | None) -> tuple[Limits, ...]:
    """`limits`, with upper ends no higher than those of the `past`."""
    if past is None:
        return tuple(limits)
    return tuple(Limits(each.lower, min(each.upper, upper)) for each, upper in zip(limits, past, strict=True))
