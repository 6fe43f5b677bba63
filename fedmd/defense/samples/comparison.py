"""Samples beside the server's trusted ones, which baselines compare them with; a trusted one never with itself.

In float64 on the CPU, so that bf16 changes the features only. Whatever the baselines' papers do with the *predicted*
class is done with the *claimed* label, because a server judges a labelled sample. A class with no trusted sample (or,
for a trusted sample, no other one) is judged by the whole set.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedmd.defense.samples.outputs import ModelOutputs, TrustedSamples


@dataclass(frozen=True)
class Comparison:
    """N `values` [N, d] with `labels` [N] and the m trusted ones to hold them against.

    `are_trusted`: the values are the trusted ones themselves, N = m and in the same order.
    """

    values: Tensor
    labels: Tensor
    trusted: Tensor
    trusted_labels: Tensor
    are_trusted: bool

    def allowed(self) -> Tensor:
        """bool [N, m]: the trusted samples each may be compared with, all but itself."""
        allowed = torch.ones(len(self.values), len(self.trusted), dtype=torch.bool)
        return allowed.fill_diagonal_(False) if self.are_trusted else allowed

    def of_class(self) -> Tensor:
        """bool [N, m]: those of them with the claimed label; all of them where there are none."""
        allowed = self.allowed()
        same = allowed & (self.labels[:, None] == self.trusted_labels)
        return torch.where(same.any(dim=1, keepdim=True), same, allowed)

    def distances(self) -> Tensor:
        """[N, m]: Euclidean, from differences, so that equal samples are at distance 0 exactly."""
        return torch.cdist(self.values, self.trusted, compute_mode="donot_use_mm_for_euclid_dist")

    def class_sums(self) -> tuple[Tensor, Tensor]:
        """Sums [K, d] and numbers [K] of the trusted samples of each class."""
        classes = int(torch.cat([self.labels, self.trusted_labels]).max()) + 1
        sums = torch.zeros(classes, self.trusted.shape[1], dtype=torch.float64)
        sums.index_add_(0, self.trusted_labels, self.trusted)
        return sums, F.one_hot(self.trusted_labels, classes).sum(dim=0).double()

    def class_means(self) -> Tensor:
        """[N, d]: the mean of the trusted samples that `of_class` marks, by sums over classes."""
        sums, counts = self.class_sums()
        total, count = sums[self.labels], counts[self.labels]
        everything, n = self.trusted.sum(dim=0).expand_as(self.values), float(len(self.trusted))
        if self.are_trusted:
            total, count, everything, n = total - self.values, count - 1, everything - self.values, n - 1
        alone = count < 0.5
        return torch.where(alone[:, None], everything / n, total / count.clamp(min=1)[:, None])

    def residuals(self) -> Tensor:
        """[m, d]: what is left of every trusted sample without the mean of its class, itself included."""
        sums, counts = self.class_sums()
        return self.trusted - (sums / counts.clamp(min=1)[:, None])[self.trusted_labels]


def compare_pixels(outputs: ModelOutputs) -> Comparison | None:
    """Of the images as vectors; None for an empty batch."""
    trusted = _trusted(outputs)
    return _compare(outputs, outputs.x, trusted.labels, trusted.x)


def compare_features(outputs: ModelOutputs) -> Comparison | None:
    """Of the penultimate features; None for an empty batch and for a model without any."""
    if outputs.features is None:
        return None
    trusted = _trusted(outputs)
    return _compare(outputs, outputs.features, trusted.labels, trusted.features)


def unmeasured(outputs: ModelOutputs) -> Tensor:
    """NaN [N]."""
    return torch.full((len(outputs.labels),), torch.nan, device=outputs.labels.device)


def as_scores(outputs: ModelOutputs, values: Tensor) -> Tensor:
    """`values` [N] as every detector returns them: float32, where the labels are."""
    return values.float().to(outputs.labels.device)


def _trusted(outputs: ModelOutputs) -> TrustedSamples:
    if outputs.trusted is None:
        raise ValueError("trusted must be given to a detector that compares with the trusted set")
    return outputs.trusted()


def _compare(outputs: ModelOutputs, values: Tensor | None, labels: Tensor, trusted: Tensor | None) -> Comparison | None:
    if values is None or trusted is None or len(values) == 0 or len(trusted) == 0:
        return None
    mine, theirs = outputs.labels.cpu().long(), labels.cpu().long()
    return Comparison(_exact(values), mine, _exact(trusted), theirs, outputs.are_trusted)


def _exact(values: Tensor) -> Tensor:
    return values.detach().flatten(1).cpu().double()
