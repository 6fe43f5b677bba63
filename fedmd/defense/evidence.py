"""Sequential evidence against a client, eq (9): an extension of ours, from the ranks of its samples' scores.

Every round, a client's n scores are ranked among the m scores of the server's trusted samples under the same models.
With U the number of pairs in which the client's sample scores higher (ties count half), r = U / (n m) estimates the
chance that a sample of the client outranks a trusted one. For an honest client, exchangeable with the trusted set,

    E r = 1/2,   Var r = (n + m + 1) / (12 n m)                                          (Mann and Whitney 1947)

Against it stands r = 1/2 + shift. The log-likelihood ratio of the two, r taken as normal, is added up by Page's CUSUM
(1954), which forgets what speaks for the client:

    S <- max(0, S + shift (r - 1/2 - shift / 2) / Var r)      [nats]

False alarms: exp(increment) has mean at most 1 for an honest client (the mean of uniform ranks is sub-Gaussian with
this variance), so the mean number of rounds to a false alarm at a limit of h nats is at least exp(h) (Lorden 1971),
whatever n is: at most 1,000 exp(-h) in 1,000 of its rounds, which is how the limit is set. Two things bend that. The
trusted set is the same in every round, so its own luck, of standard deviation 1 / sqrt(12 m) in r, stays; it is
harmless while much smaller than shift / 2, that is for m >> 1 / (3 shift^2). And a client whose data simply are unlike
the trusted ones (non-IID) has an r of its own: below 1/2 + shift / 2 the evidence still falls on average, though alarms
come sooner; beyond that honesty is no defence. Ranks make no assumption on the scores' distribution or scale.

In mode=update the server has no trusted *updates* to rank a client's among, but the round's other clients'. So both
sides of the ranks are the round's own scores: with K clients, and the client itself among those it is compared with,

    r = (number below + half the number of ties, itself included) / K,   E r = 1/2,   Var r <= 1/12

for clients that are exchangeable, whatever the scores are. `increment` reckons with (K + 2) / (12 K), which is more, so
the bound on false alarms holds. The score is an update's excess over its limits and 0 for everybody within them
(`UpdateVerdict.evidence`): who is unlike the others, but not so much that the screening would act, ties with all
others, and the evidence falls. Ranks of the discrepancy alone would always find somebody last: with clients whose data
differ for good, one honest client after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]


def outranking(scores: Scores, trusted: Scores) -> float:
    """r = U / (n m), the share of pairs in which a score of `scores` [n] exceeds one of `trusted` [m]; ties half.

    A NaN counts as larger than every number. Raises ValueError where either is empty.
    """
    if len(scores) == 0 or len(trusted) == 0:
        raise ValueError("ranks need at least one score on either side")
    return float(_twice_outranked(scores, trusted).mean() / (2 * len(trusted)))


def increment(scores: Scores, trusted: Scores, shift: float) -> float:
    """One round's log-likelihood ratio, in nats, of `scores` [n] being shifted by `shift` against being honest."""
    return _log_likelihood_ratio(outranking(scores, trusted), len(scores), len(trusted), shift)


@dataclass(frozen=True)
class Evidence:
    """`nats` by client; a client that is not named has none against it."""

    nats: Mapping[int, float] = field(default_factory=dict)

    def after(self, clients: NDArray[np.int64], scores: Scores, trusted: Scores, shift: float) -> "Evidence":
        """With one more round's `scores` [N], sent by `clients` [N], ranked among `trusted` [m].

        Where a model has diverged, so that `trusted` are no numbers, ranks say nothing and the evidence stays.
        """
        if not np.isfinite(trusted).all():
            return self
        senders, sender, sent = np.unique(clients, return_inverse=True, return_counts=True)
        outranked = np.bincount(sender, _twice_outranked(scores, trusted))  # all clients at once: they may be many
        added = {}
        for client, n, twice in zip(senders.tolist(), sent.tolist(), outranked.tolist(), strict=True):
            ratio = _log_likelihood_ratio(twice / n / (2 * len(trusted)), n, len(trusted), shift)
            added[client] = max(0.0, self.of(client) + ratio)
        return Evidence({**self.nats, **added})

    def of(self, client: int) -> float:
        """What there is against `client`."""
        return self.nats.get(client, 0.0)

    def without(self, clients: frozenset[int]) -> "Evidence":
        """A new beginning for `clients`."""
        return Evidence({client: nats for client, nats in self.nats.items() if client not in clients})


def _twice_outranked(scores: Scores, trusted: Scores) -> NDArray[np.int64]:
    """Twice the number of `trusted` [m] that each of `scores` [n] exceeds, a tie being half of one."""
    ordered = np.sort(trusted)  # NaN sorts last
    return np.searchsorted(ordered, scores, side="left") + np.searchsorted(ordered, scores, side="right")


def _log_likelihood_ratio(r: float, n: int, m: int, shift: float) -> float:
    variance = (n + m + 1) / (12 * n * m)
    return shift * (r - 0.5 - shift / 2) / variance
