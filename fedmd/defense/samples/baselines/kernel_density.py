"""Kernel density in the penultimate features (Feinman et al., Detecting Adversarial Samples from Artifacts, 2017)."""

import math

from torch import Tensor

from fedmd.defense.samples.baselines.reference import Compared, features, scores, unmeasured
from fedmd.defense.samples.outputs import Answers

SMALLEST = 1e-6  # a bandwidth: features may have collapsed into one point a class


def kernel_density(answers: Answers) -> Tensor:
    """-log K(x) [N], in nats: K(x) = mean over trusted z of the claimed class of exp(-‖f(x) - f(z)‖² / 2h²).

    Like the paper's, K lacks the density's constant, so that 0 is the least suspicious and the score has no unit of
    length. The paper tunes h for each data set by hand; `bandwidth` follows the features.
    """
    compared = features(answers)
    if compared is None:
        return unmeasured(answers)
    near = compared.distances() ** 2 / (-2 * bandwidth(compared) ** 2)
    peers = compared.of_class()
    log_sums = near.masked_fill(~peers, -math.inf).logsumexp(dim=1)
    return scores(answers, peers.sum(dim=1).log() - log_sums)


def bandwidth(compared: Compared) -> float:
    """Scott's rule (Multivariate Density Estimation, 1992) h = σ n^(-1 / (d + 4)).

    σ² is the features' mean variance within a class, n the mean number of trusted samples of a class.
    """
    m, d = compared.trusted.shape
    sigma = math.sqrt(float((compared.residuals() ** 2).mean()))
    n = m / len(compared.trusted_labels.unique())  # type: ignore[no-untyped-call]
    return max(SMALLEST, float(sigma * n ** (-1 / (d + 4))))
