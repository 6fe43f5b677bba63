"""Mahalanobis distance in the penultimate features (Lee et al., A Simple Unified Framework, NeurIPS 2018)."""

import torch
from torch import Tensor

from fedmd.defense.samples.baselines.reference import Compared, class_sums, features, scores, unmeasured
from fedmd.defense.samples.outputs import Answers

SMALLEST = 1e-9


def mahalanobis(answers: Answers) -> Tensor:
    """√((f - μ_y)ᵀ Σ⁻¹ (f - μ_y)) [N], μ_y the trusted mean of the claimed class y, Σ one covariance for all classes.

    Where we differ from the paper: it takes the nearest class's mean, we the claimed one's; the root, which changes no
    order; and Σ is shrunk (Ledoit & Wolf, 2004), as a trusted set may have fewer samples than features. A trusted
    sample is left out of its own mean and of Σ, whose shrinkage stays that of the whole set.
    """
    compared = features(answers)
    if compared is None or len(compared.trusted) < 2:
        return unmeasured(answers)
    if not bool(torch.cat([compared.values, compared.trusted]).isfinite().all()):
        return unmeasured(answers)  # a model has diverged
    from sklearn.covariance import ledoit_wolf  # slow to import, and only needed here

    residuals = compared.residuals()
    covariance, shrinkage = ledoit_wolf(residuals.numpy(), assume_centered=True)
    precision = torch.linalg.pinv(torch.from_numpy(covariance), hermitian=True)
    away = compared.values - compared.class_means()
    squared = _product(away, precision, away)
    if compared.own:
        squared = squared + _left_out(compared, residuals, precision, away, 1 - shrinkage)
    return scores(answers, squared.clamp(min=0).sqrt())


def _left_out(compared: Compared, residuals: Tensor, precision: Tensor, away: Tensor, weight: float) -> Tensor:
    """What each squared distance [m] gains when its sample leaves Σ (Sherman & Morrison).

    Of n samples in a class the i-th adds (n / (n - 1)) r_i r_iᵀ to the scatter, so with a its share in Σ

        (Σ - a r rᵀ)⁻¹ = Σ⁻¹ + a Σ⁻¹ r rᵀ Σ⁻¹ / (1 - a rᵀ Σ⁻¹ r)
    """
    n = class_sums(compared)[1][compared.trusted_labels]
    share = weight * n / (n - 1).clamp(min=1) / len(residuals)  # r = 0 where a class has this one sample
    rest = (1 - share * _product(residuals, precision, residuals)).clamp(min=SMALLEST)
    return share * _product(away, precision, residuals) ** 2 / rest


def _product(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """leftᵢᵀ matrix rightᵢ [N] of rows [N, d]."""
    return ((left @ matrix) * right).sum(dim=1)
