"""What the two models make of a batch: the one record that every detector judges by."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from fedmd.models.features import logits_and_features
from fedmd.training.evaluate import evaluating


@dataclass(frozen=True)
class TrustedSamples:
    """The server's m trusted samples `x` [m, C, H, W], their `labels` [m] and `features` [m, d] under today's model.

    `scores` gives what a detector makes of them [m], each judged by the others where it compares with them.
    """

    x: Tensor
    labels: Tensor
    features: Tensor | None
    scores: Callable[["Callable[[ModelOutputs], Tensor]"], Tensor] | None = None


@dataclass(frozen=True)
class ModelOutputs:
    """Of N samples `historical` and `current` logits [N, K], the claimed `labels` [N], and what baselines look at.

    x: the samples themselves [N, C, H, W].
    features: the current model's penultimate features [N, d]; None where it has no `nn.Linear`.
    trusted: what to compare with, only called, and paid for, by detectors that do.
    are_trusted: these samples are the trusted ones themselves, in their order; then each is judged by the others.
    """

    historical: Tensor
    current: Tensor
    labels: Tensor
    x: Tensor | None = None
    features: Tensor | None = None
    trusted: Callable[[], TrustedSamples] | None = None
    are_trusted: bool = False


@torch.no_grad()
def compute_outputs(
    historical: nn.Module,
    current: nn.Module,
    x: Tensor,
    y: Tensor,
    trusted: Callable[[], TrustedSamples] | None = None,
) -> ModelOutputs:
    """Both models' outputs for `x` [N, C, H, W], one forward pass each, in eval mode; their train/eval flags come back.

    N = 0 runs neither.
    """
    if len(x) == 0:
        nothing = torch.zeros(0, 1, device=x.device)
        return ModelOutputs(nothing, nothing, y, x, None, trusted)
    with evaluating(historical, current):
        earlier = historical(x)
        logits, features = logits_and_features(current, x)
    return ModelOutputs(earlier, logits, y, x, features, trusted)


class TrustedSet:
    """The trusted samples under today's two models; each model runs once, and only if somebody wants to know."""

    def __init__(self, historical: nn.Module, current: nn.Module, x: Tensor, y: Tensor) -> None:
        self._historical = historical
        self._current = current
        self._x = x
        self._y = y
        self._scores: dict[Callable[[ModelOutputs], Tensor], Tensor] = {}

    def scores(self, detector: Callable[[ModelOutputs], Tensor]) -> Tensor:
        """What `detector` makes of them [m], measured once."""
        if detector not in self._scores:
            self._scores[detector] = detector(self.outputs)
        return self._scores[detector]

    @cached_property
    def outputs(self) -> ModelOutputs:
        """For the scores that a threshold is made of."""
        with torch.no_grad(), evaluating(self._historical):
            earlier = self._historical(self._x)
        logits, features = self._current_outputs
        return ModelOutputs(earlier, logits, self._y, self._x, features, lambda: self.samples, are_trusted=True)

    @cached_property
    def samples(self) -> TrustedSamples:
        """For detectors that compare samples with these; runs the current model only."""
        return TrustedSamples(self._x, self._y, self._current_outputs[1], self.scores)

    @cached_property
    def _current_outputs(self) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), evaluating(self._current):
            return logits_and_features(self._current, self._x)
