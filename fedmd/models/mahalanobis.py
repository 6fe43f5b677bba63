"""Mahalanobis distances to the mean of a class, one shrunk covariance for all classes."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmd.models.comparison import Comparison

_SMALLEST_REST = 1e-9


@dataclass(frozen=True)
class WithinClasses:
    """How m trusted samples vary within their classes: `precision` Σ⁻¹ [d, d], `residuals` [m, d], shrinkage of Σ."""

    precision: Tensor
    residuals: Tensor
    shrinkage: float

    @classmethod
    def of(cls, comparison: Comparison) -> Self:
        """Of a comparison's trusted samples; a precision of NaN where one of them is not finite."""
        residuals = comparison.residuals()
        if not bool(residuals.isfinite().all()):
            return cls(torch.full((residuals.shape[1],) * 2, torch.nan, dtype=torch.float64), residuals, torch.nan)
        covariance, shrinkage = ledoit_wolf(residuals.numpy())
        return cls(torch.linalg.pinv(torch.from_numpy(covariance), hermitian=True), residuals, shrinkage)

    def squared_distances(self, comparison: Comparison) -> Tensor:
        """(f - μ_y)ᵀ Σ⁻¹ (f - μ_y) [N], μ_y the trusted mean of the claimed class y; with the values' graph.

        A trusted sample is left out of its own mean and of Σ, whose shrinkage stays that of the whole set.
        """
        away = comparison.values - comparison.class_means()
        squared = _product(away, self.precision, away)
        if comparison.are_trusted:
            squared = squared + self._left_out(comparison, away)
        return squared.clamp(min=0)

    def _left_out(self, comparison: Comparison, away: Tensor) -> Tensor:
        """What each squared distance [m] gains when its sample leaves Σ (Sherman & Morrison).

        Of n samples in a class the i-th adds (n / (n - 1)) r_i r_iᵀ to the scatter, so with a its share in Σ

            (Σ - a r rᵀ)⁻¹ = Σ⁻¹ + a Σ⁻¹ r rᵀ Σ⁻¹ / (1 - a rᵀ Σ⁻¹ r)
        """
        n = comparison.class_sums()[1][comparison.trusted_labels]
        weight = 1 - self.shrinkage
        share = weight * n / (n - 1).clamp(min=1) / len(self.residuals)  # r = 0 where a class has this one sample
        rest = (1 - share * _product(self.residuals, self.precision, self.residuals)).clamp(min=_SMALLEST_REST)
        return share * _product(away, self.precision, self.residuals) ** 2 / rest


def _product(left: Tensor, matrix: Tensor, right: Tensor) -> Tensor:
    """leftᵢᵀ matrix rightᵢ [N] of rows [N, d]."""
    return ((left @ matrix) * right).sum(dim=1)


def ledoit_wolf(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The shrunk covariance [d, d] of centred `rows` [n, d], and how much it is shrunk, in [0, 1].

        (1 - λ) S + λ μ I,   S = rowsᵀ rows / n,   μ = tr S / d,   λ = min(b², δ²) / δ²,
        δ² = ‖S - μ I‖² / d,   b² = Σ_k ‖x_k x_kᵀ - S‖² / (n² d)

    (Ledoit & Wolf, A well-conditioned estimator for large-dimensional covariance matrices, 2004, their
    bona fide estimator). As
    scikit-learn computes it, which takes a run a second to import.
    """
    n, d = rows.shape
    squares = rows**2
    covariance: NDArray[np.float64] = rows.T @ rows / n
    if d == 1:
        return covariance, 0.0
    variances = squares.sum(axis=0) / n
    mean = variances.sum() / d
    square_of_covariance = np.sum((rows.T @ rows) ** 2) / n**2
    spread = (np.sum(squares.T @ squares) / n - square_of_covariance) / (d * n)
    distance = (square_of_covariance - 2 * mean * variances.sum() + d * mean**2) / d
    least = min(spread, distance)
    shrinkage = 0.0 if least == 0 else float(least / distance)
    shrunk = (1 - shrinkage) * covariance
    shrunk.flat[:: d + 1] += shrinkage * np.trace(covariance) / d
    return shrunk, shrinkage
