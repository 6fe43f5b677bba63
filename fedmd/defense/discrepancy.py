"""Memorization Discrepancy, eq (5) of [MD23]: how far the current model has moved on a sample.

    D(x; θ_h, θ_t) = KL(p_{θ_h}(x) ‖ p_{θ_t}(x)) = Σ_k p_{θ_h,k} (log p_{θ_h,k} − log p_{θ_t,k})

The historical model is the reference distribution (first argument of KL), the current one the approximation.
In nats.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import torch
from torch import Tensor, nn

from fedmd.training.evaluate import evaluating


@torch.no_grad()
def memorization_discrepancy(historical: nn.Module, current: nn.Module, x: Tensor) -> Tensor:
    """Eq (5): KL(historical ‖ current) of every sample, in nats.

    Args:
        historical: the earlier snapshot θ_h.
        current: the server's model θ_t.
        x: samples [N, ...].

    Returns:
        [N], >= 0, no gradient. Both models are run in eval mode and get their own train/eval flags back. An
        empty batch runs neither model.

    Example:
        >>> import torch
        >>> from fedmd import memorization_discrepancy
        >>> net = torch.nn.Linear(2, 3)
        >>> memorization_discrepancy(net, net, torch.rand(4, 2))
        tensor([0., 0., 0., 0.])
    """
    if len(x) == 0:
        return torch.zeros(0, dtype=x.dtype if x.is_floating_point() else torch.get_default_dtype(), device=x.device)
    with evaluating(historical, current):
        return discrepancy_from_logits(historical(x), current(x))


def discrepancy_from_logits(historical_logits: Tensor, current_logits: Tensor) -> Tensor:
    """Eq (5) from logits, both [N, K]: KL(softmax historical ‖ softmax current) [N], in nats.

    Differentiable in both arguments. Computed in float32 at least (half-precision logits are widened).
    Differs from the formula in one thing: clamped at zero, as rounding can leave a tiny negative number where
    the two agree. A class with historical probability exactly 0 contributes 0; NaN logits give NaN, never a
    harmless-looking zero.

    Raises:
        ValueError: the two are not of the same shape [N, K].
    """
    if historical_logits.ndim != 2 or historical_logits.shape != current_logits.shape:
        raise ValueError(
            "historical_logits and current_logits must have the same shape [N, K], "
            f"got {list(historical_logits.shape)} and {list(current_logits.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(historical_logits.dtype, current_logits.dtype), torch.float32)
    log_h = historical_logits.log_softmax(dim=1, dtype=dtype)
    log_t = current_logits.log_softmax(dim=1, dtype=dtype)
    p_h = log_h.exp()
    terms = torch.where(p_h == 0, 0.0, p_h * (log_h - log_t))
    return terms.sum(dim=1).clamp(min=0.0)
