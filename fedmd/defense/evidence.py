"""Sequential evidence against a client, eq (9): an extension of ours, from the ranks of its samples' scores.

Every round, each of a client's n scores is ranked among the scores of the server's trusted samples of the class that
the sample claims, under the same models. With U_c the number of pairs in which the client's n_c samples of class c
score higher than the m_c trusted ones (ties count half), r = Σ_c U_c / (n m_c) estimates the chance that a sample of
the client outranks a trusted one of its class. For an honest client, whose samples of a class are exchangeable with the
trusted ones of that class, however many of each it has (conformal prediction within categories: Vovk et al.,
Algorithmic Learning in a Random World, 2005),

    E r = 1/2,   Var r = Σ_c n_c (n_c + m_c + 1) / (12 n² m_c)                           (Mann and Whitney 1947)

Against it stands r = 1/2 + shift. The log-likelihood ratio of the two, r taken as normal, is added up by Page's CUSUM
(1954), which forgets what speaks for the client:

    S <- max(0, S + shift (r - a - 1/2 - shift / 2) / Var r)      [nats],   a² = Σ_c n_c² / (12 n² m_c)

The trusted set is the same in every round, so its own luck in r lasts: a is the standard deviation of it, and is given
to the client.

False alarms: exp(increment) has mean at most 1 for an honest client (the mean of uniform ranks is sub-Gaussian with
this variance), so the mean number of rounds to a false alarm at a limit of h nats is at least exp(h) (Lorden 1971),
whatever n is: at most 1,000 exp(-h) in 1,000 of its rounds, which is how the limit is set. What bends that: luck of the
trusted set beyond a; and a client whose samples are unlike the trusted ones *of their class* has an r of its own: below
1/2 + shift / 2 the evidence still falls on average, though alarms come sooner; beyond that honesty is no defence. Ranks
make no assumption on the scores' distribution or scale.

In mode=update the server has no trusted *updates* to rank a client's among, but the round's other clients'. So both
sides of the ranks are the round's own scores, of one class: with K clients, and the client itself among those it is
compared with,

    r = (number below + half the number of ties, itself included) / K,   E r = 1/2,   Var r <= 1/12

for clients that are exchangeable, whatever the scores are. `increments` reckons with (K + 2) / (12 K), which is more,
so the bound on false alarms holds, and with a = 0, as the others are not the same in every round. The score is an
update's excess over its limits and 0 for everybody within them (`UpdateVerdict.evidence`): who is unlike the others,
but not so much that the screening would act, ties with all others, and the evidence falls. Ranks of the discrepancy
alone would always find somebody last: with clients whose data differ for good, one honest client after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Ranks:
    """Each of N scores among those that it is compared with.

    place: which share of those is smaller [N], ties half.
    others: how many those are [N].
    group: scores of one group are compared with the same ones [N].
    lasting: whether those are the same samples in every round.
    """

    place: Scores
    others: NDArray[np.int64]
    group: Classes
    lasting: bool


def ranked_among(scores: Scores, others: Scores) -> Ranks:
    """`scores` [N] among `others` [m], which are not the same ones in every round.

    A NaN counts as larger than every number. Raises ValueError where either is empty.
    """
    n = len(scores)
    return Ranks(_places(scores, others), np.full(n, len(others)), np.zeros(n, np.int64), lasting=False)


def ranked_by_class(scores: Scores, classes: Classes, trusted: Scores, trusted_classes: Classes) -> Ranks:
    """`scores` [N] of samples that claim `classes` [N], each among those of the `trusted` [m] samples of its class.

    Where there are none of its class it is compared with all. NaN and errors as in `ranked_among`.
    """
    places, others, groups = np.zeros(len(scores)), np.zeros(len(scores), np.int64), np.full(len(scores), -1)
    for claimed in np.unique(classes):
        mine, theirs = classes == claimed, trusted_classes == claimed
        known = bool(theirs.any())
        compared = trusted[theirs] if known else trusted
        places[mine], others[mine] = _places(scores[mine], compared), len(compared)
        groups[mine] = claimed if known else -1
    return Ranks(places, others, groups, lasting=True)


def _places(scores: Scores, others: Scores) -> Scores:
    if len(scores) == 0 or len(others) == 0:
        raise ValueError("ranks need at least one score on either side")
    ordered = np.sort(others)  # NaN sorts last
    below = np.searchsorted(ordered, scores, side="left")
    upto = np.searchsorted(ordered, scores, side="right")
    return (below + upto) / (2 * len(others))


def increments(clients: NDArray[np.int64], ranks: Ranks, shift: float) -> dict[int, float]:
    """One round's log-likelihood ratio of each client, in nats: its scores are shifted by `shift`, or it is honest.

    `clients` [N] are the senders of the ranked scores. All at once, as they may be many.
    """
    senders, sender, sent = np.unique(clients, return_inverse=True, return_counts=True)
    _, pair, sizes = np.unique(np.stack([sender, ranks.group]), axis=1, return_inverse=True, return_counts=True)
    alike, m = sizes[pair], ranks.others  # n_c, m_c of each score's class c; a sum of n_c ... over c is one over scores

    def over_scores(values: Scores) -> Scores:
        return np.bincount(sender, values).astype(np.float64)

    r = over_scores(ranks.place) / sent
    variance = over_scores((alike + m + 1) / (12 * m)) / sent**2
    allowed = np.sqrt(over_scores(alike / (12 * m))) / sent if ranks.lasting else 0.0
    ratios = shift * (r - allowed - 0.5 - shift / 2) / variance
    return dict(zip(senders.tolist(), ratios.tolist(), strict=True))


@dataclass(frozen=True)
class Evidence:
    """`nats` by client; a client that is not named has none against it."""

    nats: Mapping[int, float] = field(default_factory=dict)

    def after(self, clients: NDArray[np.int64], ranks: Ranks, shift: float) -> "Evidence":
        """With one more round's `ranks` of N scores, sent by `clients` [N]."""
        found = increments(clients, ranks, shift)
        added = {client: max(0.0, self.of(client) + ratio) for client, ratio in found.items()}
        return Evidence({**self.nats, **added})

    def of(self, client: int) -> float:
        """What there is against `client`."""
        return self.nats.get(client, 0.0)

    def without(self, clients: frozenset[int]) -> "Evidence":
        """A new beginning for `clients`."""
        return Evidence({client: nats for client, nats in self.nats.items() if client not in clients})
