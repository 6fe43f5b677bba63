"""A covariance that can be inverted, from few samples of many features."""

import numpy as np
from numpy.typing import NDArray


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
