"""The published formulations, written as the equations are: what the kernels of fedmd are measured against.

Equations by their numbers in docs/equations.md, after [AP21] and [MD23]. Everything is differentiated through as it
stands: normalised gradients with their whole graphs, all samples in one batch, both models at every step.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tensors = list[Tensor]


def unit_gradients(model: nn.Module, x: Tensor, y: Tensor) -> Tensors:
    """ĝ_l(x; θ) with its whole graph."""
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), create_graph=True)
    return [g / g.norm() for g in gradients]


def steering_direction(model: nn.Module, x_tri: Tensor, y_tri: Tensor, x_val: Tensor, y_val: Tensor) -> Tensors:
    """(2): h_l = ∂/∂θ_l Σ_j ⟨ĝ_j(x_tri), ĝ_j(x_val)⟩."""
    pairs = zip(unit_gradients(model, x_tri, y_tri), unit_gradients(model, x_val, y_val), strict=True)
    agreement = torch.stack([(a * b).sum() for a, b in pairs]).sum()
    return list(torch.autograd.grad(agreement, list(model.parameters())))


def craft_accumulative(model: nn.Module, x: Tensor, y: Tensor, h: Tensors, radius: float, steps: int) -> Tensor:
    """(3) with γ = 1 by signed PGD."""
    target = [g.detach() + d / d.norm() for g, d in zip(unit_gradients(model, x, y), h, strict=True)]
    moved = x.clone()
    for _ in range(steps):
        probe = moved.detach().requires_grad_()
        pairs = zip(unit_gradients(model, probe, y), target, strict=True)
        objective = torch.stack([(a * b).sum() for a, b in pairs]).sum()
        (slope,) = torch.autograd.grad(objective, probe)
        moved = moved + 2 * radius / steps * slope.sign()
        moved = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 1)
    return moved


def discrepancy(historical: nn.Module, current: nn.Module, x: Tensor) -> Tensor:
    """(5): KL(p_h(x) ‖ p_t(x)) [N]."""
    log_h, log_t = historical(x).log_softmax(1), current(x).log_softmax(1)
    return (log_h.exp() * (log_h - log_t)).sum(1)


def correct(
    historical: nn.Module,
    current: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    threshold: float,
    step_size: float,
    radius: float,
    max_steps: int,
) -> Tensor:
    """(6), sample by sample in effect: the whole batch goes through both models at every step, and who is done stays.

    The published loop has one stop for the batch; here every sample has its own, so that both sides correct the same.
    """
    moved = x.clone()
    for _ in range(max_steps):
        with torch.no_grad():
            active = discrepancy(historical, current, moved) > threshold
        if not active.any():
            break
        probe = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(current(probe), y), probe)
        stepped = moved - step_size * slope.sign()
        stepped = torch.minimum(torch.maximum(stepped, x - radius), x + radius).clamp(0, 1)
        moved = torch.where(active[:, None, None, None], stepped, moved)
    return moved
