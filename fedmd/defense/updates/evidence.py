"""How far an update is out of line, as the score that the evidence (9) against its client is made of. An extension.

In mode=update the server has no trusted *updates* to rank a client's among, but the round's other clients'. So both
sides of the ranks are the round's own scores: with K clients, and the client itself among those it is compared with,

    r = (number below + half the number of ties, itself included) / K,   E r = 1/2,   Var r <= 1/12

for clients that are exchangeable, whatever the scores are. `fedmd.defense.evidence` reckons with (K + 2) / (12 K),
which is more, so its bound on false alarms holds.

The score is the excess over the limits and 0 for everybody within them: who is unlike the others, but not so much that
the screening would act, ties with all others, and the evidence falls. Ranks of the discrepancy alone would always find
somebody last: with clients whose data differ for good, one honest client after another.
"""

import sys

from fedmd.defense.updates.screen import UpdateVerdict


def outlying(verdict: UpdateVerdict) -> float:
    """max(0, excess) of the verdict's update, in units of log D; the largest number where it could not be measured."""
    beyond = verdict.excess
    return sys.float_info.max if beyond is None else min(max(0.0, beyond), sys.float_info.max)
