"""What eqs (1) to (3) of [AP21] share: gradients per tensor, their alignment's pixel gradient, signed PGD.

Normalisation needs no second-order graph of its own. With ĝ = g/‖g‖ per parameter tensor,

    ∇ Σ_l ⟨ĝ_l, t_l⟩ = ∇ Σ_l ⟨g_l, s_l⟩,   s_l = (t_l − ⟨ĝ_l, t_l⟩ ĝ_l) / ‖g_l‖ held fixed,

in x as in θ, since the Jacobian of v ↦ v/‖v‖, (I − v̂v̂ᵀ)/‖v‖, is symmetric.

All gradients are of the batch-mean cross-entropy with the model in eval mode, in the order of
model.parameters(), those with requires_grad=False included. The model is called through
torch.func.functional_call on detached parameters: its .grad, flags, requires_grad and running statistics
never change.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmd.training.evaluate import evaluating

Tensors = tuple[Tensor, ...]
Goal = Literal["ascend", "descend"]


def detached_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters by name as new leaves that require grad; they share the model's memory."""
    return {name: p.detach().requires_grad_() for name, p in model.named_parameters()}


def live_gradient(model: nn.Module, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensors:
    """g(x) at ``parameters``, its graph kept. The caller holds the model in eval mode, with grad enabled."""
    loss = F.cross_entropy(functional_call(model, parameters, (x,)), y.long())
    return torch.autograd.grad(loss, tuple(parameters.values()), create_graph=True, materialize_grads=True)


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensors:
    """g_l(x; θ) for every parameter tensor l, without a graph; an unused parameter has gradient 0."""
    with evaluating(model), torch.enable_grad():
        parameters = detached_parameters(model)
        loss = F.cross_entropy(functional_call(model, parameters, (x.detach(),)), y.long())
        return torch.autograd.grad(loss, tuple(parameters.values()), materialize_grads=True)


@torch.no_grad()
def normalised(tensors: Sequence[Tensor]) -> Tensors:
    """v_l / ‖v_l‖₂ tensor by tensor; 0 where ‖v_l‖ is negligible (see `_norms`)."""
    return tuple(
        v / norm if norm > 0 else torch.zeros_like(v) for v, norm in zip(tensors, _norms(tensors), strict=True)
    )


@torch.no_grad()
def folded(gradients: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensors:
    """s_l = (t_l − ⟨ĝ_l, t_l⟩ ĝ_l)/‖g_l‖ from g and t; 0 where ‖g_l‖ is negligible. Detached.

    Raises:
        ValueError: ``targets`` are not one tensor per gradient, of its shape.
    """
    if [t.shape for t in targets] != [g.shape for g in gradients]:
        raise ValueError("targets must hold one tensor per model parameter, of its shape, in the order of parameters()")
    out = []
    for g, t, norm in zip(gradients, targets, _norms(gradients), strict=True):
        unit = g / norm if norm > 0 else torch.zeros_like(g)
        out.append((t - (unit * t).sum() * unit) / norm if norm > 0 else unit)
    return tuple(out)


def alignment_gradient(model: nn.Module, x: Tensor, y: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """∇_x Σ_l ⟨ĝ_l(x), t_l⟩ for fixed ``targets`` t (one per parameter): [N, C, H, W], detached."""
    with evaluating(model), torch.enable_grad():
        probe = x.detach().requires_grad_()
        live = live_gradient(model, detached_parameters(model), probe, y)
        return pull(live, folded(live, targets), (probe,))[0]


def pull(outputs: Sequence[Tensor], vectors: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensors:
    """∇_inputs Σ_l ⟨outputs_l, vectors_l⟩, ``vectors`` fixed; an output without a graph contributes 0."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(i) for i in inputs)
    heads, weights = zip(*pairs, strict=True)
    return torch.autograd.grad(heads, tuple(inputs), weights, materialize_grads=True)


@torch.no_grad()
def sign_pgd(x: Tensor, pixel_gradient: Callable[[Tensor], Tensor], *, goal: Goal, radius: float, steps: int) -> Tensor:
    """Signed PGD of [AP21]: K = ``steps`` steps of size 2ε/K, no random start, projected on B_ε(x) ∩ [0, 1].

    Args:
        x: clean samples [N, ...] in [0, 1], the centre of the ball throughout.
        pixel_gradient: gradient of the objective at the point reached, of x's shape.
        goal: "ascend" or "descend" the objective.
        radius: ε, l∞, in pixel units of [0, 1].

    Raises:
        ValueError: an argument is out of its range; the message names it and what is allowed.
    """
    if goal not in get_args(Goal):
        raise ValueError(f"goal must be one of {', '.join(get_args(Goal))}, got {goal!r}")
    if not (math.isfinite(radius) and radius >= 0):
        raise ValueError(f"radius must be a finite number >= 0, got {radius}")
    if steps < 1:
        raise ValueError(f"steps must be an integer >= 1, got {steps}")
    if not x.is_floating_point() or (x.numel() > 0 and not (x.min() >= 0 and x.max() <= 1)):
        raise ValueError(f"x must be a floating-point tensor with values in [0, 1], got {x.dtype} in another range")
    centre = x.detach()
    lower, upper = (centre - radius).clamp(min=0.0), (centre + radius).clamp(max=1.0)
    size = 2 * radius / steps if goal == "ascend" else -2 * radius / steps
    moved = centre.clone()
    for _ in range(steps if len(centre) else 0):
        moved = (moved + size * pixel_gradient(moved).sign()).clamp(lower, upper)
    return moved


def _norms(tensors: Sequence[Tensor]) -> list[float]:
    """‖v_l‖₂ of each tensor, or 0.0 where it is at most the dtype's epsilon times the largest of them.

    Relative, not absolute: a confident model's gradients are all small and all meaningful, whereas a tensor
    far below its neighbours (a dead layer, a bias that a norm layer cancels) holds rounding errors that
    normalising would blow up.
    """
    norms = [float(torch.linalg.vector_norm(v)) for v in tensors]
    largest = max(norms, default=0.0)
    return [n if n > torch.finfo(v.dtype).eps * largest else 0.0 for v, n in zip(tensors, norms, strict=True)]
