"""Update discrepancy, eq (10): how differently a model that swallowed a client's update answers a trusted probe.

    D_i = mean over the probe of KL(p_{θ_h} ‖ p_{θ_t + Δ_i}),   Δ_i = what client i sent − θ_t

The historical model is the reference distribution (first argument of KL), as in eq (5) of [MD23]. Screening *updates*
is an extension of ours: the paper screens samples.

One candidate model is in memory at a time, whatever the number of clients: states are copied into one net in place.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.training.mode import evaluating

State = Mapping[str, Tensor]


@torch.no_grad()
def probe_logits(model: nn.Module, probe: Sequence[Tensor]) -> Tensor:
    """The answers of `model` to the batches of `probe` ([n, C, H, W] each): logits [N, K], eval mode."""
    with evaluating(model):
        return torch.cat([model(x) for x in probe])


def update_discrepancy(historical_logits: Tensor, candidate: nn.Module, probe: Sequence[Tensor]) -> float:
    """Eq (10) in nats, for the candidate θ_t + Δ_i loaded in `candidate`; >= 0, infinite where it is no number.

    `historical_logits` [N, K] are `probe_logits` of the historical model: once a round, not once a client.
    """
    value = discrepancy_from_logits(historical_logits, probe_logits(candidate, probe)).mean().item()
    return value if math.isfinite(value) else math.inf


@torch.no_grad()
def load_between(model: nn.Module, current: State, received: State, scale: float) -> None:
    """Copy θ_t + scale · Δ into `model`'s own tensors, parameters and buffers; exact at 0 and 1.

    Integer entries (a BatchNorm's counter of batches) are interpolated too and rounded, so that no client moves one
    further than its update is allowed to count. Either state may be on another device, or hold a counter that
    averaging has made a float.
    """
    for name, own in model.state_dict().items():
        if not own.is_floating_point():
            start, end = current[name].double(), received[name].double()
            own.copy_((start + scale * (end - start)).round())
        elif scale == 1:
            own.copy_(received[name])
        else:
            own.copy_(current[name])
            if scale != 0:
                own.lerp_(received[name].to(own), scale)


def largest_scale(discrepancy: Callable[[float], float], threshold: float, *, halvings: int = 6) -> tuple[float, float]:
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
