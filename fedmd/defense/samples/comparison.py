"""Samples beside the server's trusted ones, which baselines compare them with; a trusted one never with itself.

In float64 on the CPU, so that bf16 changes the features only. Whatever the baselines' papers do with the *predicted*
class is done with the *claimed* label, because a server judges a labelled sample. A class with no trusted sample (or,
for a trusted sample, no other one) is judged by the whole set.
"""

import torch
from torch import Tensor

from fedmd.defense.samples.outputs import ModelOutputs, TrustedSamples
from fedmd.models.comparison import Comparison


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
