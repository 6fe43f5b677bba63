"""The trigger batch, eq (1) of [AP21]: samples whose gradient points against the validation gradient.

    minimise over x' in B_ε(x_tri):   S(x') = Σ_l ⟨ĝ_l(x'; θ_t), ĝ_l(x_val; θ_t)⟩

One training step on such a batch then undoes what the validation samples would teach. The validation batch
must be the attacker's own: the published code takes it from the test set.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from fedmd.attacks.adaptive_samples import Restraint
from fedmd.attacks.gradients import alignment_gradient, gradient, normalised, sign_pgd


def craft_trigger(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_val: Tensor,
    y_val: Tensor,
    *,
    radius: float,
    steps: int,
    restraint: Restraint | None = None,
) -> Tensor:
    """Eq (1) by signed PGD at θ_t = ``model``: the trigger samples [N, C, H, W].

    Args:
        x, y: *clean* trigger samples [N, C, H, W] in [0, 1] and their labels [N]. Crafting again at a later θ
            ("online trigger") means handing in the clean ones again; the published code re-centres the ball
            on the previous trigger, and its budget grows beyond ε.
        x_val, y_val: the attacker's validation samples [M, C, H, W] and labels [M]; their gradient is taken
            once.
        radius: ε, l∞, in pixel units of [0, 1].
        steps: K >= 1 PGD steps, each of size 2ε/K.
        restraint: what the attackers know of the defence, eq (11).

    Raises:
        ValueError: radius or steps out of range, or x not in [0, 1].
    """
    validation = normalised(gradient(model, x_val, y_val))

    def slope(moved: Tensor) -> Tensor:
        rise = trigger_gradient(model, moved, y, validation)
        return rise if restraint is None else -restraint.uphill(-rise, moved, y)

    return sign_pgd(
        x,
        slope,
        goal="descend",
        radius=radius,
        steps=steps,
    )


def trigger_gradient(model: nn.Module, x: Tensor, y: Tensor, validation_direction: Sequence[Tensor]) -> Tensor:
    """∇_x S of eq (1) at ``x``, before sign(): [N, C, H, W].

    ``validation_direction`` is ĝ(x_val; θ_t): one unit tensor per parameter, in the order of
    model.parameters().
    """
    return alignment_gradient(model, x, y, validation_direction)
