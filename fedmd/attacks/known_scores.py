"""The scores of the defence that attackers who know its model can compute, differentiable in the samples: for eq (11).

    D(x') = KL(p_{θ_h}(x') ‖ p_{θ_t}(x')),   eq (5)
    C(x', y) = −log p_D(D(x')) − log p_M(M(x', y)),   p_k(s) = mean_j σ((s_kj − s) / h_k),   h_k = m^(−1/5) std_j s_kj

M is the Mahalanobis distance of the penultimate features to the mean of the claimed class, s_kj what the k-th score
makes of the j-th of the attackers' own m validation samples, which is left out of its own mean and covariance. So C is
the detector `combined` with their samples in the place of the server's, and with its p-values, which are steps and have
no gradient, smoothed by a logistic kernel; h by Scott's rule [S92]. Far beyond all of their own samples −log p_k still
rises, as (s − max_j s_kj) / h_k.

[S92] Scott, Multivariate Density Estimation, 1992.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.attacks.gradients import PART
from fedmd.config import ConfigError
from fedmd.models.comparison import Comparison
from fedmd.models.features import has_features, logits_and_features
from fedmd.models.mahalanobis import WithinClasses
from fedmd.training.evaluate import evaluating

RestrainedScore = Literal["discrepancy", "combined"]
Score = Callable[[Tensor, Tensor], Tensor]  # of samples [N, ...] and the labels they claim [N]: [N], with its graph

_SMALLEST_SQUARE = 1e-12  # of a distance: the root has no slope at 0
_SMALLEST_BANDWIDTH = 1e-6  # scores may all be one


@dataclass(frozen=True)
class Discrepancy:
    """D of eq (5) in nats, both models in eval mode; neither is changed."""

    historical: nn.Module
    current: nn.Module

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """D [N] of ``x`` [N, ...], whatever ``y`` is claimed."""
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """D [N] and the current model's penultimate features [N, d], of one pass through each model."""
        x = x.to(next(self.current.parameters()).device)
        with evaluating(self.historical, self.current):
            earlier: Tensor = self.historical(x)
            logits, features = logits_and_features(self.current, x)
        log_h, log_t = _log_probabilities(earlier), _log_probabilities(logits)
        return F.kl_div(log_t, log_h, log_target=True, reduction="none").sum(dim=1), features


class Combined:
    """C in nats, by the attackers' ``own`` samples [m, ...] and labels [m].

    Raises ConfigError where the model has no penultimate features.
    """

    def __init__(self, discrepancy: Discrepancy, own: tuple[Tensor, Tensor]) -> None:
        require_features(discrepancy.current)
        self._discrepancy = discrepancy
        x, y = own
        with torch.no_grad():
            parts = [discrepancy.with_features(part) for part in torch.split(x, PART)]
            self._features = _exact(torch.cat([_found(features) for _, features in parts]))
            self._labels = y.cpu().long()
            mine = self._beside(self._features, self._labels, are_trusted=True)
            self._within = WithinClasses.of(mine)
            self._discrepancies = torch.cat([values for values, _ in parts]).cpu().double()
            self._distances = _root(self._within.squared_distances(mine))

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """C [N] of ``x`` [N, ...] that claim ``y`` [N]; float64 on the CPU."""
        values, features = self._discrepancy.with_features(x)
        beside = self._beside(_exact(_found(features)), y.cpu().long())
        distances = _root(self._within.squared_distances(beside))
        return -smooth_log_p(values.cpu().double(), self._discrepancies) - smooth_log_p(distances, self._distances)

    def _beside(self, features: Tensor, labels: Tensor, *, are_trusted: bool = False) -> Comparison:
        return Comparison(features, labels, self._features, self._labels, are_trusted)


def smooth_log_p(scores: Tensor, own: Tensor) -> Tensor:
    """log p(s) [N], p(s) = mean_j σ((s_j − s) / h), of ``scores`` s [N] among one's ``own`` s_j [m]; m >= 2."""
    m = len(own)
    bandwidth = (own.std() * m**-0.2).clamp(min=_SMALLEST_BANDWIDTH)
    return F.logsigmoid((own - scores[:, None]) / bandwidth).logsumexp(dim=1) - torch.tensor(m).log()


def require_features(model: nn.Module) -> None:
    """Raise ConfigError where ``model`` has no penultimate features to look at."""
    if not has_features(model):
        raise ConfigError(
            "attack.restrained_score: combined needs the input of a torch.nn.Linear and the model has none; "
            "allowed: discrepancy."
        )


def _log_probabilities(logits: Tensor) -> Tensor:
    """log p [N, K], in 32 bits at least: under autocast logits come in 16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=1)


def _found(features: Tensor | None) -> Tensor:
    if features is None:
        raise ValueError("the model's last nn.Linear must be run on one row a sample")
    return features


def _exact(features: Tensor) -> Tensor:
    return features.cpu().double()


def _root(squares: Tensor) -> Tensor:
    return squares.clamp(min=_SMALLEST_SQUARE).sqrt()
