"""Data-level detectors of the literature, beside which the discrepancy stands in every report.

Each is fitted on the server's trusted set under today's model; how, and where that differs from the papers, is said in
`fedmd.defense.samples.comparison`. All scores are >= 0, and NaN where features are missing.
"""

import math

import torch
from pydantic import Field
from torch import Tensor

from fedmd.config import Count, Section
from fedmd.defense.samples.comparison import as_scores, compare_features, compare_pixels, unmeasured
from fedmd.defense.samples.detectors.base import Detector
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.models.comparison import Comparison
from fedmd.models.mahalanobis import WithinClasses
from fedmd.registry import register_detector

_SMALLEST_BANDWIDTH = 1e-6  # features may have collapsed into one point a class
_SMALLEST_DISTANCE = 1e-12  # and a mean log ratio: neighbours may coincide, or all be equally far


@register_detector("pixel_distance")
class PixelDistance(Detector):
    """Distance to the mean image of the claimed class (Steinhardt et al., NeurIPS 2017).

    The distance behind the sphere defence of Steinhardt et al., Certified Defenses for Data Poisoning Attacks,
    NeurIPS 2017. It looks at no model.
    """

    label = "Pixel distance"

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """‖x - μ_y‖₂ [N], μ_y the mean image of the trusted samples of the claimed class y; pixels in [0, 1]."""
        comparison = compare_pixels(outputs)
        if comparison is None:
            return unmeasured(outputs)
        return as_scores(outputs, (comparison.values - comparison.class_means()).norm(dim=1))


@register_detector("kernel_density")
class KernelDensity(Detector):
    """Kernel density in the penultimate features (Feinman et al., 2017).

    Feinman et al., Detecting Adversarial Samples from Artifacts, 2017, f the penultimate features. Like the paper's, K
    lacks the density's constant, so that 0 is the least suspicious and the score has no unit of length. The paper tunes
    h for each data set by hand; `bandwidth` follows the features.
    """

    label = "Negative log kernel density"
    unit = "nats"
    needs_features = True

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """-log K(x) [N], in nats: K(x) = mean over trusted z of the claimed class of exp(-‖f(x) - f(z)‖² / 2h²)."""
        comparison = compare_features(outputs)
        if comparison is None:
            return unmeasured(outputs)
        near = comparison.distances() ** 2 / (-2 * bandwidth(comparison) ** 2)
        peers = comparison.of_class()
        log_sums = near.masked_fill(~peers, -math.inf).logsumexp(dim=1)
        return as_scores(outputs, peers.sum(dim=1).log() - log_sums)


def bandwidth(comparison: Comparison) -> float:
    """Scott's rule (Multivariate Density Estimation, 1992) h = σ n^(-1 / (d + 4)).

    σ² is the features' mean variance within a class, n the mean number of trusted samples of a class.
    """
    m, d = comparison.trusted.shape
    sigma = math.sqrt(float((comparison.residuals() ** 2).mean()))
    n = m / len(comparison.trusted_labels.unique())  # type: ignore[no-untyped-call]
    return max(_SMALLEST_BANDWIDTH, float(sigma * n ** (-1 / (d + 4))))


@register_detector("lid")
class Lid(Detector):
    """Local intrinsic dimensionality in the penultimate features (Ma et al., ICLR 2018).

    Local intrinsic dimensionality (Ma et al., Characterizing Adversarial Subspaces Using LID, ICLR 2018): the paper's
    maximum-likelihood estimate in the penultimate features only (it feeds those of all layers to a classifier),
    k = min(neighbours, all there are). Looks at no label.
    """

    label = "Local intrinsic dimensionality"
    needs_features = True

    class Params(Section):
        """How many neighbours."""

        neighbours: Count = Field(20, description="the paper's k for batches of 100")

    params: Params

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """-((1/k) Σ_{i=1..k} log(r_i / r_k))⁻¹ [N], r_i the distance to the i-th nearest trusted sample."""
        comparison = compare_features(outputs)
        if comparison is None:
            return unmeasured(outputs)
        k = min(self.params.neighbours, len(comparison.trusted) - comparison.are_trusted)
        if k < 1:
            return unmeasured(outputs)
        distances = comparison.distances().masked_fill(~comparison.allowed(), math.inf)
        nearest = distances.topk(k, dim=1, largest=False).values.clamp(min=_SMALLEST_DISTANCE)
        ratios = (nearest / nearest.amax(dim=1, keepdim=True)).log()
        return as_scores(outputs, 1 / (-ratios.mean(dim=1)).clamp(min=_SMALLEST_DISTANCE))


@register_detector("mahalanobis")
class Mahalanobis(Detector):
    """Mahalanobis distance in the penultimate features (Lee et al., NeurIPS 2018).

    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks, NeurIPS
    2018, f the penultimate features. Where we differ from the paper: it takes the nearest class's mean, we the claimed
    one's; the root, which changes no order; and Σ is shrunk (Ledoit & Wolf, 2004), as a trusted set may have fewer
    samples than features. A trusted sample is left out of its own mean and of Σ, whose shrinkage stays that of the
    whole set.
    """

    label = "Mahalanobis distance"
    needs_features = True

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """√((f - μ_y)ᵀ Σ⁻¹ (f - μ_y)) [N], μ_y the trusted mean of the claimed class y, Σ one covariance for all."""
        comparison = compare_features(outputs)
        if comparison is None or len(comparison.trusted) < 2:
            return unmeasured(outputs)
        if not bool(torch.cat([comparison.values, comparison.trusted]).isfinite().all()):
            return unmeasured(outputs)  # a model has diverged
        return as_scores(outputs, WithinClasses.of(comparison).squared_distances(comparison).sqrt())
