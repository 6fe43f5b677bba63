"""Eq (11) for updates: attackers who know the historical model, or the limit as well, and how they hold back.

    model, accumulative round:     v ← β v + λ ∇_θ S + μ ∇_θ D(θ_t),  see eq (4)
    model, trigger round:          Δ = a Δ_tri,  a of 1, 1/2, ..., 1/64, 0 with the largest  E(θ_t + Δ) − μ D(θ_t + Δ)
    model and threshold:           whatever is sent is halved until  D(θ_t + Δ) ≤ T

    D(θ) = max over θ_h of the mean of KL(p_{θ_h} ‖ p_θ) over the attackers' validation set; E, the share of it that is
    answered wrongly

An extension: [MD23] has no attacker who knows. θ_h are, of the models that the server sent them since they began, the
one of `history.lag` rounds ago and the first. With history=lag_and_start, the default, these are the server's own; with
lag they mind the first one without need, with ema and snapshot the first alone stands for the server's. The server's
probe, other clients and the limit itself are unknown to them; T is what they believe the limit to be.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import kl_div

from fedmd.attacks.gradients import detached_parameters
from fedmd.attacks.shared_cache import SharedCache
from fedmd.training.evaluate import evaluating
from fedmd.training.local import floating

DefenseKnowledge = Literal["none", "model", "model_and_threshold"]

_KIND = "models"


def largest_discrepancy(historical_logits: Tensor, logits: Tensor) -> Tensor:
    """max over h of mean KL(p_h ‖ p), eq (10): `historical_logits` [H, N, K], `logits` [N, K]; a scalar in nats."""
    log_p = logits.log_softmax(dim=1)
    each = [kl_div(log_p, h.log_softmax(dim=1), log_target=True, reduction="batchmean") for h in historical_logits]
    return torch.stack(each).amax()


def discrepancy_gradient(model: nn.Module, historical_logits: Tensor, x: Tensor) -> Tensor:
    """∇_θ D at θ_t = ``model``, in eval mode [d], parameters() flattened; the model stays as it is.

    Args:
        historical_logits: what the historical models answer to `x`, [H, N, K].
        x: the attackers' validation images [N, C, H, W].
    """
    parameters = detached_parameters(model)
    with evaluating(model), torch.enable_grad():
        value = largest_discrepancy(historical_logits, functional_call(model, parameters, (x.detach(),)))
        gradients = torch.autograd.grad(value, tuple(parameters.values()), materialize_grads=True)
    return torch.cat([each.detach().reshape(-1) for each in gradients])


def most_worthwhile(update: Tensor, worth: Callable[[Tensor], float], *, halvings: int = 6) -> Tensor:
    """Of update, update / 2, ..., update / 2**halvings and zeros the one of the largest ``worth`` [d]."""
    candidates: list[Tensor] = [update * 0.5**times for times in range(halvings + 1)] + [torch.zeros_like(update)]
    worths = [worth(each) for each in candidates]
    return candidates[worths.index(max(worths))]


def seen_models(
    cache: SharedCache, round: int, current: Mapping[str, Tensor], lag: int | None
) -> list[dict[str, Tensor]]:
    """The historical models as far as the attackers saw them, the first one first; what they see now is remembered.

    Args:
        current: the server's model in `round`.
        lag: how many rounds ago the later of the two is from; None: there is the first alone.
    """
    seen = _by_round(cache.kept(_KIND) or {})
    seen[round] = {name: tensor.detach().cpu().clone() for name, tensor in floating(current).items()}
    first, latest = min(seen), sorted(seen)[-1 - (lag or 0) :]
    kept = {each: seen[each] for each in dict.fromkeys([first, *latest])}
    cache.keep(_KIND, {f"{each}/{name}": tensor for each, state in kept.items() for name, tensor in state.items()})
    return [seen[first]] if lag is None else [seen[first], seen[latest[0]]]


def _by_round(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    models: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        round, name = key.split("/", 1)
        models.setdefault(int(round), {})[name] = tensor
    return models
