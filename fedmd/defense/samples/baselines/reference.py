"""What a sample is compared with: the server's trusted samples, never itself."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedmd.defense.samples.outputs import Answers, Reference


@dataclass(frozen=True)
class Compared:
    """N `values` [N, d] with `labels` [N] and the m trusted ones to hold them against, float64 on the CPU.

    `own`: the values are the trusted ones themselves, N = m and in the same order.
    """

    values: Tensor
    labels: Tensor
    trusted: Tensor
    trusted_labels: Tensor
    own: bool

    def allowed(self) -> Tensor:
        """bool [N, m]: the trusted samples each may be compared with, all but itself."""
        allowed = torch.ones(len(self.values), len(self.trusted), dtype=torch.bool)
        return allowed.fill_diagonal_(False) if self.own else allowed

    def of_class(self) -> Tensor:
        """bool [N, m]: those of them with the claimed label; all of them where there are none."""
        allowed = self.allowed()
        same = allowed & (self.labels[:, None] == self.trusted_labels)
        return torch.where(same.any(dim=1, keepdim=True), same, allowed)

    def distances(self) -> Tensor:
        """[N, m]: Euclidean, from differences, so that equal samples are at distance 0 exactly."""
        return torch.cdist(self.values, self.trusted, compute_mode="donot_use_mm_for_euclid_dist")

    def class_means(self) -> Tensor:
        """[N, d]: the mean of the trusted samples that `of_class` marks, by sums over classes."""
        sums, counts = class_sums(self)
        total, count = sums[self.labels], counts[self.labels]
        everything, n = self.trusted.sum(dim=0).expand_as(self.values), float(len(self.trusted))
        if self.own:
            total, count, everything, n = total - self.values, count - 1, everything - self.values, n - 1
        alone = count < 0.5
        return torch.where(alone[:, None], everything / n, total / count.clamp(min=1)[:, None])

    def residuals(self) -> Tensor:
        """[m, d]: what is left of every trusted sample without the mean of its class, itself included."""
        sums, counts = class_sums(self)
        return self.trusted - (sums / counts.clamp(min=1)[:, None])[self.trusted_labels]


def class_sums(compared: Compared) -> tuple[Tensor, Tensor]:
    """Sums [K, d] and numbers [K] of the trusted samples of each class."""
    classes = int(torch.cat([compared.labels, compared.trusted_labels]).max()) + 1
    sums = torch.zeros(classes, compared.trusted.shape[1], dtype=torch.float64)
    sums.index_add_(0, compared.trusted_labels, compared.trusted)
    return sums, F.one_hot(compared.trusted_labels, classes).sum(dim=0).double()


def pixels(answers: Answers) -> Compared | None:
    """The images as vectors; None for an empty batch."""
    reference = _reference(answers)
    return _compared(answers, answers.x, reference.labels, reference.x)


def features(answers: Answers) -> Compared | None:
    """The penultimate features; None for an empty batch and for a model without any."""
    if answers.features is None:
        return None
    reference = _reference(answers)
    return _compared(answers, answers.features, reference.labels, reference.features)


def unmeasured(answers: Answers) -> Tensor:
    """NaN [N]."""
    return torch.full((len(answers.labels),), torch.nan, device=answers.labels.device)


def scores(answers: Answers, values: Tensor) -> Tensor:
    """`values` [N] as every detector returns them: float32, where the labels are."""
    return values.float().to(answers.labels.device)


def _reference(answers: Answers) -> Reference:
    if answers.reference is None:
        raise ValueError("reference must be given to a detector that compares with the trusted set")
    return answers.reference()


def _compared(answers: Answers, values: Tensor | None, labels: Tensor, trusted: Tensor | None) -> Compared | None:
    if values is None or trusted is None or len(values) == 0 or len(trusted) == 0:
        return None
    return Compared(_exact(values), answers.labels.cpu().long(), _exact(trusted), labels.cpu().long(), own=answers.own)


def _exact(values: Tensor) -> Tensor:
    return values.detach().flatten(1).cpu().double()
