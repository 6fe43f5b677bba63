"""Update discrepancy, eq (10): how differently a model that swallowed a client's update answers a trusted probe.

    D_i = mean over the probe of KL(p_{θ_h} ‖ p_{θ_t + Δ_i}),   Δ_i = what client i sent − θ_t

The historical model is the reference distribution (first argument of KL), as in eq (5) of [MD23]. Screening *updates*
is an extension of ours: the paper screens samples.

One candidate model is in memory at a time, whatever the number of clients: states are copied into one net in place.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fedmd.defense.discrepancy import discrepancy_from_logits

State = Mapping[str, Tensor]


def update_discrepancy(historical_logits: Tensor, candidate_logits: Tensor) -> tuple[float, ...]:
    """Eq (10) in nats, one for each of H historical models; >= 0, and infinite where it is no number.

    `historical_logits` [H, N, K] are their answers to the probe, computed once a round, `candidate_logits` [N, K]
    those of θ_t + Δ_i, computed once for all histories.
    """
    candidates = candidate_logits.expand_as(historical_logits)
    each = discrepancy_from_logits(historical_logits.flatten(0, 1), candidates.flatten(0, 1))
    values: list[float] = each.view(len(historical_logits), -1).mean(dim=1).tolist()
    return tuple(value if math.isfinite(value) else math.inf for value in values)


@torch.no_grad()
def load_between(own: State, current: State, received: State, scale: float) -> None:
    """Copy θ_t + scale · Δ into a net's `own` tensors, parameters and buffers; exact at 0 and 1.

    Integer entries (a BatchNorm's counter of batches) are interpolated too and rounded, so that no client moves one
    further than its update is allowed to count. Either state may be on another device, or hold a counter that
    averaging has made a float.
    """
    for name, tensor in own.items():
        start, end = current[name], received[name]
        if 0 < scale < 1 and tensor.is_floating_point():
            tensor.copy_(start).lerp_(end.to(tensor), scale)
        elif 0 < scale < 1:
            tensor.copy_((start.double() + scale * (end.double() - start.double())).round())
        else:
            whole = end if scale == 1 else start
            tensor.copy_(whole if tensor.is_floating_point() or not whole.is_floating_point() else whole.round())


def largest_scale(discrepancy: Callable[[float], float], threshold: float, *, halvings: int = 8) -> tuple[float, float]:
    """The largest a in [0, 1] with D(a) <= `threshold`, eq (10)'s correction, by bisection: (a, D(a)).

    `discrepancy` maps a to D(θ_t + aΔ); it is asked halvings + 2 times at most, and a is a multiple of 2**-halvings.
    What is promised for every D: the value returned was measured, is at or below the threshold, and D is above it at
    a + 2**-halvings (or a is 1). Where the logits are linear in the parameters D is convex in a (log-sum-exp is), so
    that the allowed scales are an interval from 0 and a is the largest; where D goes up and down more than once, a
    stands before *one* of its crossings, not always the last. (0, D(0)) where even D(0) is above the threshold: no
    share of this update is known to be harmless.
    """
    if (whole := discrepancy(1.0)) <= threshold:
        return 1.0, whole
    best, after = 0, discrepancy(0.0)
    if not after <= threshold:
        return 0.0, after
    steps = 2**halvings
    above = steps
    while above - best > 1:
        middle = (best + above) // 2
        value = discrepancy(middle / steps)
        if value <= threshold:
            best, after = middle, value
        else:
            above = middle
    return best / steps, after
