"""Discrepancy-aware Sample Correction (DSC), eq (6) of [MD23], and the paper's adversarial-training baseline.

    x ← Π_{B_ε(x₀) ∩ [0,1]} [x − α sign ∇_x CE(f_{θ_t}(x), y)]   while D(x), eq (5), is above T_t

It *descends* the loss: a sample is pulled back towards what the current model knows, no further than its
discrepancy demands. Models are run in eval mode; their flags, parameters, running statistics and .grad are
left alone.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.defense.samples.detectors.base import Score
from fedmd.defense.samples.detectors.model_scores import DISCREPANCY
from fedmd.defense.samples.outputs import ModelOutputs, TrustedSamples, compute_outputs
from fedmd.defense.samples.pooling import Stopping, pooled
from fedmd.models.features import penultimate_features
from fedmd.training.evaluate import evaluating

# logits [n, K] of the samples numbered [n] -> scalar, summed over them
_Loss = Callable[[Tensor, Tensor], Tensor]
# x [n, ...], its logits [n, K], the samples' numbers [n] -> bool [n]: which of them are to move on
_GoOn = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Correction:
    """What `correct` did to a batch of N samples.

    x: the corrected samples [N, ...]; those with steps == 0 are bit-identical to the input.
    steps: steps actually taken per sample, int64 [N].
    before, after: the detector's score, by default the discrepancy (5), at the input and at ``x``, nats [N].
    """

    x: Tensor
    steps: Tensor
    before: Tensor
    after: Tensor


@torch.no_grad()
def correct(
    current: nn.Module,
    historical: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threshold: float,
    step_size: float = 0.02,
    radius: float = 0.2,
    max_steps: int = 10,
    stopping: Stopping = "per_sample",
    before: Tensor | None = None,
    clients: Tensor | None = None,
    detector: Score = DISCREPANCY,
    trusted: Callable[[], TrustedSamples] | None = None,
) -> Correction:
    """Eq (6): pull samples back until their discrepancy is at or below ``threshold``.

    Args:
        current, historical: θ_t and θ_h; the discrepancy is KL(historical ‖ current).
        x: samples [N, ...] in [0, 1]; y: their labels [N], any integer type.
        threshold: T_t in nats; may be infinite (nothing is corrected) or negative (everything is, to the last
            step).
        step_size, radius: α and ε, in pixel units of [0, 1], l∞.
        max_steps: at most so many steps per sample.
        stopping: "per_sample": every sample stops by itself, one at or below the threshold is never touched,
            and after the first look only samples still above it are computed. "batch_mean": all samples move
            until the *mean* discrepancy is at or below the threshold. "per_client" (ours): every client's
            samples move together until *their* mean is, which is the published rule for one client.
        before: the score of ``x`` [N] where the caller has measured it already; measured here if None.
        clients: client ids [N], for "per_client".
        detector: what is held against the threshold; anything but the discrepancy is an extension of ours.
        trusted: the trusted set, for detectors that compare with it.

    The paper's idea is per sample, its code stops on the batch mean; hence the two names. We take the
    gradient of the summed loss, the code that of the mean: same sign. A sample whose discrepancy is NaN is
    left as it is, and ``before`` shows it.

    Raises:
        ValueError: an argument is out of its range; the message names it and what is allowed.
    """
    if stopping not in get_args(Stopping):
        raise ValueError(f"stopping must be one of {', '.join(get_args(Stopping))}, got {stopping!r}")
    if stopping == "per_client" and clients is None:
        raise ValueError("clients must name each sample's client for stopping='per_client'")
    if math.isnan(threshold):
        raise ValueError("threshold must be a number of nats, got nan")
    _check(x, y, step_size=step_size, radius=radius, max_steps=max_steps)
    x, y = x.detach(), y.long()
    if before is None:
        before = detector(compute_outputs(historical, current, x, y, trusted))
    after = before.clone()

    def go_on(moved: Tensor, logits: Tensor, index: Tensor) -> Tensor:
        found = features(len(moved))  # of the pass that made these logits
        seen = None if found is None else found.detach()
        outputs = ModelOutputs(historical(moved), logits, y[index], moved, seen, trusted)
        after[index] = detector(outputs)
        return (pooled(after, stopping, clients) > threshold)[index]

    def loss(logits: Tensor, index: Tensor) -> Tensor:
        return F.cross_entropy(logits, y[index], reduction="sum")

    with evaluating(current, historical), penultimate_features(current) as features:
        corrected, steps = _descend(
            current,
            x,
            pooled(before, stopping, clients) > threshold,
            loss,
            go_on,
            step_size=step_size,
            radius=radius,
            max_steps=max_steps,
        )
    return Correction(corrected, steps, before, after)


@torch.no_grad()
def adversarial_correct(
    current: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    step_size: float = 0.02,
    radius: float = 0.2,
    max_steps: int = 10,
) -> Tensor:
    """The baseline `AT` of [MD23]: the inner loop of (6) for all samples, ``max_steps`` steps, no threshold.

    Its published inner loss, CE(f(x'), y) + (1/K) mean_n KL(p(x) ‖ p(x')) with K classes and p(x) held fixed,
    is *descended* like (6)'s. The 1/K is the code's (`kl_div` averaged over every entry). Arguments as in
    `correct`.

    Returns:
        the moved samples [N, ...]; there is no historical model here, hence no discrepancy to report.
    """
    _check(x, y, step_size=step_size, radius=radius, max_steps=max_steps)
    x, y = x.detach(), y.long()
    if len(x) == 0:
        return x.clone()
    with evaluating(current):
        clean = current(x)

        def loss(logits: Tensor, index: Tensor) -> Tensor:
            log_p, log_q = clean[index].log_softmax(1), logits.log_softmax(1)
            kl = F.kl_div(log_q, log_p, reduction="sum", log_target=True)  # KL(p(x) ‖ p(x'))
            return F.cross_entropy(logits, y[index], reduction="sum") + kl / logits.shape[1]

        every = torch.ones(len(x), dtype=torch.bool, device=x.device)
        moved, _ = _descend(current, x, every, loss, None, step_size=step_size, radius=radius, max_steps=max_steps)
    return moved


def _descend(
    current: nn.Module,
    x0: Tensor,
    start: Tensor,
    loss: _Loss,
    go_on: _GoOn | None,
    *,
    step_size: float,
    radius: float,
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    """Sign descent on ``loss`` for the samples marked in ``start`` (bool [N]), each until ``go_on`` says no.

    One forward pass a step serves both the stopping rule at the point reached and the gradient for the next
    step. The price is one superfluous backward pass in a sample's life, when it stops and others of its step
    do not; a pass of its own for the rule would cost every sample one forward at every step. Returns x and
    steps [N].
    """
    x, steps = x0.clone(), torch.zeros(len(x0), dtype=torch.int64, device=x0.device)
    lower, upper = (x0 - radius).clamp(min=0.0), (x0 + radius).clamp(max=1.0)
    index = start.nonzero().squeeze(1)
    for step in range(max_steps):
        if len(index) == 0:
            return x, steps
        probe = x[index].requires_grad_()
        with torch.enable_grad():
            logits = current(probe)
        if go_on is not None and step > 0:
            keep = go_on(probe.detach(), logits.detach(), index)
            if not keep.any():
                return x, steps
        else:
            keep = torch.ones_like(index, dtype=torch.bool)
        index = index[keep]
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(logits[keep], index), probe)
        moved = probe.detach()[keep] - step_size * gradient[keep].sign()
        x[index] = moved.clamp(lower[index], upper[index])
        steps[index] += 1
    if go_on is not None and max_steps > 0 and len(index) > 0:
        go_on(x[index], current(x[index]), index)
    return x, steps


def _check(x: Tensor, y: Tensor, *, step_size: float, radius: float, max_steps: int) -> None:
    for name, value in (("step_size", step_size), ("radius", radius)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be a finite number >= 0, got {value}")
    if max_steps < 0:
        raise ValueError(f"max_steps must be an integer >= 0, got {max_steps}")
    if not x.is_floating_point() or (x.numel() > 0 and not (x.min() >= 0 and x.max() <= 1)):
        raise ValueError(f"x must be a floating-point tensor with values in [0, 1], got {x.dtype} in another range")
    if y.shape != x.shape[:1] or y.is_floating_point() or y.is_complex():
        raise ValueError(f"y must be integer labels of shape [{len(x)}], got {y.dtype} {list(y.shape)}")
