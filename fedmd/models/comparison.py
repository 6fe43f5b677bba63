"""Samples beside those of a reference set, as vectors; one of that set never beside itself."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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
