"""The accumulative phase, eqs (2) and (3) of [AP21]: steer the model so that the trigger will bite.

    h_l = ∂/∂θ_l Σ_j ⟨ĝ_j(x_tri; θ_t), ĝ_j(x_val; θ_t)⟩                                          (2)
    maximise over x' in B_ε(x):   Σ_l ⟨ĝ_l(x'; θ_t), γ ĝ_l(x; θ_t) + ĥ_l⟩                        (3)

A step along −g(x') then also descends the trigger's objective (1), while the γ term keeps the batch looking
useful.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fedmd.attacks.adaptive_samples import Restraint
from fedmd.attacks.gradients import (
    LiveGradient,
    Tensors,
    alignment_gradient,
    folded,
    normalised,
    sign_pgd,
)

Variant = Literal["normal", "second", "reg"]
# variant -> weights of the γ term and of ĥ in (3)
VARIANTS: dict[str, tuple[float, float]] = {"normal": (1.0, 0.0), "second": (0.0, 1.0), "reg": (1.0, 1.0)}


def steering_direction(model: nn.Module, x_tri: Tensor, y_tri: Tensor, x_val: Tensor, y_val: Tensor) -> Tensors:
    """Eq (2): h at θ_t = ``model``, one tensor per parameter, in the order of parameters(), not normalised.

    h depends on the model, the trigger and the validation batch only: all colluders of a round share one.
    Both gradients depend on θ, so h = H_tri s_tri + H_val s_val, two Hessian-vector products with fixed
    vectors (see `gradients`), one after the other. Graphs are held only as far as `LiveGradient` keeps them.
    """
    trigger, validation = LiveGradient(model, x_tri, y_tri), LiveGradient(model, x_val, y_val)
    of_validation = validation.pull(folded(validation.value, normalised(trigger.value)))
    of_trigger = trigger.pull(folded(trigger.value, normalised(validation.value)))
    return tuple(a.add_(b) for a, b in zip(of_trigger, of_validation, strict=True))


def craft_accumulative(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    direction: Sequence[Tensor],
    *,
    radius: float,
    steps: int,
    gamma: float = 1.0,
    variant: Variant = "reg",
    restraint: Restraint | None = None,
) -> Tensor:
    """Eq (3) by signed PGD at θ_t = ``model``: the accumulative samples [N, C, H, W].

    Args:
        x, y: clean samples [N, C, H, W] in [0, 1] and their labels [N]. ĝ(x) at these is taken once and held
            fixed; it is the first step's gradient, too.
        direction: h of `steering_direction`; normalised per tensor in here.
        radius: ε, l∞, in pixel units of [0, 1].
        steps: K >= 1 PGD steps, each of size 2ε/K.
        gamma: γ, weight of staying close to the clean gradient.
        variant: "reg" both terms, "normal" the γ term only, "second" ĥ only.
        restraint: what the attackers know of the defence, eq (11).

    With "normal" the clean batch already maximises (3): the gradient there is zero but for rounding, so the
    first step is noise and differs between machines. It is a control, not an attack.

    Raises:
        ValueError: variant, radius, steps, x or direction not as above.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    if [h.shape for h in direction] != [p.shape for p in model.parameters()]:
        raise ValueError(
            "direction must hold one tensor per model parameter, of its shape, as steering_direction gives"
        )
    clean = LiveGradient(model, x, y, wrt="samples")
    target = accumulative_target(clean.value, direction, gamma=gamma, variant=variant)

    def held_back(slope: Tensor, moved: Tensor) -> Tensor:
        return slope if restraint is None else restraint.uphill(slope, moved, y)

    return sign_pgd(
        x,
        lambda moved: held_back(accumulative_gradient(model, moved, y, target), moved),
        at_start=lambda: held_back(clean.pull(folded(clean.value, target))[0], x),
        goal="ascend",
        radius=radius,
        steps=steps,
    )


def accumulative_target(
    clean: Sequence[Tensor], direction: Sequence[Tensor], *, gamma: float = 1.0, variant: Variant = "reg"
) -> Tensors:
    """The fixed right-hand side of (3), γ ĝ_l(x; θ_t) + ĥ_l, from g at the ``clean`` samples.

    Other arguments as in `craft_accumulative`.
    """
    keep, steer = VARIANTS[variant]
    pairs = zip(normalised(clean), normalised(direction), strict=True)
    return tuple(keep * gamma * g + steer * h for g, h in pairs)


def accumulative_gradient(model: nn.Module, x: Tensor, y: Tensor, target: Sequence[Tensor]) -> Tensor:
    """∇_x of eq (3) at ``x``, before sign(): [N, C, H, W]; ``target`` is `accumulative_target`'s."""
    return alignment_gradient(model, x, y, target)
