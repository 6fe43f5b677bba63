"""Min-Max and Min-Sum of [SH21]: as far from the honest mean as the honest updates are from one another.

    Δ_mal = μ + γ p,  μ the mean of the honest updates Δ_1 ... Δ_n, p a perturbation, γ >= 0 the largest with
    min_max:   max_i ‖Δ_mal − Δ_i‖     <= max_{i,j} ‖Δ_i − Δ_j‖
    min_sum:   Σ_i ‖Δ_mal − Δ_i‖²      <= max_i Σ_j ‖Δ_i − Δ_j‖²

[SH21] searches γ by halving steps. Both constraints are quadratic in γ and hold at γ = 0 (μ lies in the convex hull
of the Δ_i), so we take the root itself: exact, and one pass over the updates.

[SH21] Shejwalkar & Houmansadr, Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
Federated Learning, NDSS 2021.
"""

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import SeesUpdates
from fedmd.attacks.gradients import normalised

BLOCK = 1 << 16  # coordinates that are held in float64 at a time


def spread(honest: Tensor) -> Tensor:
    """Standard deviation of each coordinate over the rows of ``honest`` [n, d], unbiased; 0 for a single row: [d]."""
    return honest.std(dim=0) if len(honest) > 1 else torch.zeros_like(honest[0])


# p of [SH21], from honest updates [n, d]. Which is strongest depends on data and aggregation rule; the γ that
# belongs to each makes their lengths comparable.
PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse_std": lambda honest: -spread(honest),
    "inverse_unit": lambda honest: -normalised((honest.mean(dim=0),))[0],
    "inverse_sign": lambda honest: -honest.mean(dim=0).sign(),
}


class DistanceParams(SeesUpdates):
    """p."""

    perturbation: Literal["inverse_std", "inverse_unit", "inverse_sign"] = Field(
        "inverse_std", description="inverse_std | inverse_unit | inverse_sign"
    )


def min_max(honest: Tensor, perturbation: str = "inverse_std") -> Tensor:
    """The Min-Max update [d] against the honest updates [n, d]; their mean where they are all alike.

    Raises:
        ValueError: ``perturbation`` is not a name in PERTURBATIONS.
    """
    p = _direction(honest, perturbation)
    centred, along, length = _products(honest, p)
    slack = (_squared_distances(centred).max() - centred.diagonal()).clamp(min=0)  # below 0 by rounding only
    # the larger root of ‖p‖²γ² − 2γ⟨p, Δ_i − μ⟩ − slack_i = 0, the smallest of them over i
    gamma = ((along + (along.square() + length * slack).sqrt()) / length).min() if length > 0 else length
    return honest.mean(dim=0) + float(gamma) * p


def min_sum(honest: Tensor, perturbation: str = "inverse_std") -> Tensor:
    """The Min-Sum update [d] against the honest updates [n, d]; their mean where they are all alike.

    Raises:
        ValueError: ``perturbation`` is not a name in PERTURBATIONS.
    """
    p = _direction(honest, perturbation)
    centred, _, length = _products(honest, p)
    # the term linear in γ vanishes: Σ_i (Δ_i − μ) = 0
    slack = (_squared_distances(centred).sum(dim=1).max() - centred.trace()).clamp(min=0)
    gamma = (slack / (len(honest) * length)).sqrt() if length > 0 else length
    return honest.mean(dim=0) + float(gamma) * p


def _direction(honest: Tensor, perturbation: str) -> Tensor:
    if perturbation not in PERTURBATIONS:
        raise ValueError(f"perturbation must be one of {', '.join(PERTURBATIONS)}, got {perturbation!r}")
    return PERTURBATIONS[perturbation](honest)


def _products(honest: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """⟨Δ_i − μ, Δ_j − μ⟩ [n, n], ⟨Δ_i − μ, p⟩ [n] and ‖p‖², in float64.

    Centred first, so that distances taken from them do not suffer cancellation; block by block, so that no second
    copy of all updates is made. For updates on a CPU or CUDA device: Apple's has no float64.
    """
    gram = torch.zeros(len(honest) + 1, len(honest) + 1, dtype=torch.float64, device=honest.device)
    for updates, direction in zip(torch.split(honest, BLOCK, dim=1), torch.split(p, BLOCK), strict=True):
        wide = updates.double()
        rows = torch.cat([wide - wide.mean(dim=0), direction.double()[None]])
        gram += rows @ rows.T
    return gram[:-1, :-1], gram[:-1, -1], gram[-1, -1]


def _squared_distances(gram: Tensor) -> Tensor:
    """‖a_i − a_j‖² [n, n] from the inner products ⟨a_i, a_j⟩."""
    squares = gram.diagonal()
    return squares[:, None] + squares[None, :] - 2 * gram
