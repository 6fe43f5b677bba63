"""What eqs (1) to (3) of [AP21] share: gradients per tensor, their alignment's pixel gradient, signed PGD.

Normalisation needs no second-order graph of its own. With ĝ = g/‖g‖ per parameter tensor,

    ∇ Σ_l ⟨ĝ_l, t_l⟩ = ∇ Σ_l ⟨g_l, s_l⟩,   s_l = (t_l − ⟨ĝ_l, t_l⟩ ĝ_l) / ‖g_l‖ held fixed,

in x as in θ, since the Jacobian of v ↦ v/‖v‖, (I − v̂v̂ᵀ)/‖v‖, is symmetric.

All gradients are of the batch-mean cross-entropy with the model in eval mode, in the order of
model.parameters(), those with requires_grad=False included. The model is called through
torch.func.functional_call on detached parameters: its .grad, flags, requires_grad and running statistics
never change. In eval mode a sample's loss does not depend on the others of its batch, so that large batches are taken
in parts (`LiveGradient`), exact up to the order of summation.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fedmd.attacks.second_order import TwiceDifferentiable
from fedmd.training.evaluate import evaluating

Tensors = tuple[Tensor, ...]
Goal = Literal["ascend", "descend"]

PART = 100  # samples that are differentiated at a time
KEPT = 100  # samples of one batch whose graphs are kept for a second derivative; those of the others are made again


def detached_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters by name as new leaves that require grad; they share the model's memory."""
    return {name: p.detach().requires_grad_() for name, p in model.named_parameters()}


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensors:
    """g_l(x; θ) for every parameter tensor l, without a graph; an unused parameter has gradient 0."""
    return LiveGradient(model, x, y, kept=0).value


class LiveGradient:
    """g(x), its `value` [one tensor a parameter, detached], ready to be differentiated once more, by one `pull`.

    The batch is taken in parts of PART samples. The graphs of at most ``kept`` samples (KEPT if None) stay in memory;
    the other parts are differentiated again when it comes to that, a gradient more for each: so memory is bounded,
    whatever the batch, and a small one costs nothing more.

    Args:
        wrt: what `pull` differentiates by.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        wrt: Literal["parameters", "samples"] = "parameters",
        kept: int | None = None,
    ) -> None:
        self._model = model
        self._wrt = wrt
        self._parameters = detached_parameters(model)
        size = PART if _separable(model) else max(1, len(x))
        self._parts = [
            (part.detach().requires_grad_(wrt == "samples"), labels.long(), len(part) / max(1, len(x)))
            for part, labels in zip(torch.split(x, size), torch.split(y, size), strict=True)
        ]
        self._graphs: list[Tensors | None] = []
        room = KEPT if kept is None else kept
        self.value: Tensors = ()
        for part, labels, share in self._parts:
            room -= len(part)
            gradients = self._differentiated(part, labels, create_graph=room >= 0)
            self._graphs.append(gradients if room >= 0 else None)
            self.value = _add(self.value, gradients, share)
            del gradients

    def pull(self, vectors: Sequence[Tensor]) -> Tensors:
        """∇ Σ_l ⟨g_l, s_l⟩ for fixed ``vectors`` s: one tensor a parameter, or one [N, ...] of all samples."""
        if self._wrt == "samples":
            slopes = [(pull(live, vectors, (part,))[0], share) for live, part, share in self._live()]
            return (slopes[0][0] if len(slopes) == 1 else torch.cat([share * slope for slope, share in slopes]),)
        pulled: Tensors = ()
        for live, _, share in self._live():
            pulled = _add(pulled, pull(live, vectors, tuple(self._parameters.values())), share)
        return pulled

    def _live(self) -> Iterator[tuple[Tensors, Tensor, float]]:
        """Each part's gradient with its graph, its samples, its share of all; a graph is handed on and forgotten."""
        for number, (part, labels, share) in enumerate(self._parts):
            live, self._graphs[number] = self._graphs[number], None
            if live is None:
                live = self._differentiated(part, labels, create_graph=True, valued=False)
            yield live, part, share
            del live

    def _differentiated(self, x: Tensor, y: Tensor, *, create_graph: bool, valued: bool = True) -> Tensors:
        graph = TwiceDifferentiable(by_weights=self._wrt == "parameters", valued=valued)
        with evaluating(self._model), torch.enable_grad(), graph if create_graph else nullcontext():
            loss = F.cross_entropy(functional_call(self._model, self._parameters, (x,)), y)
            wanted = tuple(self._parameters.values())
            return torch.autograd.grad(loss, wanted, create_graph=create_graph, materialize_grads=True)


@torch.no_grad()
def _add(total: Tensors, gradients: Tensors, share: float) -> Tensors:
    """``total`` + share · ``gradients``, in place; there is no total before the first part."""
    if not total:
        return tuple(g.detach().clone() if share == 1 else share * g for g in gradients)
    for sum_, g in zip(total, gradients, strict=True):
        sum_.add_(g, alpha=share)
    return total


def _separable(model: nn.Module) -> bool:
    """Whether in eval mode a sample's output depends on the sample alone: no batch norm without running statistics."""
    return all(m.running_mean is not None for m in model.modules() if isinstance(m, _BatchNorm))


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
    live = LiveGradient(model, x, y, wrt="samples")
    return live.pull(folded(live.value, targets))[0]


def pull(outputs: Sequence[Tensor], vectors: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensors:
    """∇_inputs Σ_l ⟨outputs_l, vectors_l⟩, ``vectors`` fixed; an output without a graph contributes 0."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return tuple(torch.zeros_like(i) for i in inputs)
    with torch.enable_grad():
        total = torch.stack([torch.dot(o.flatten(), v.flatten()) for o, v in pairs]).sum()
    return torch.autograd.grad(total, tuple(inputs), materialize_grads=True)


@torch.no_grad()
def sign_pgd(
    x: Tensor,
    pixel_gradient: Callable[[Tensor], Tensor],
    *,
    goal: Goal,
    radius: float,
    steps: int,
    at_start: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Signed PGD of [AP21]: K = ``steps`` steps of size 2ε/K, no random start, projected on B_ε(x) ∩ [0, 1].

    Args:
        x: clean samples [N, ...] in [0, 1], the centre of the ball throughout.
        pixel_gradient: gradient of the objective at the point reached, of x's shape.
        at_start: the same at ``x`` itself, where somebody has made most of it already.
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
    for step in range(steps if len(centre) else 0):
        slope = at_start() if at_start is not None and step == 0 else pixel_gradient(moved)
        moved = (moved + size * slope.sign()).clamp(lower, upper)
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
