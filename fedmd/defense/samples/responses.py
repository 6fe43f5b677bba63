"""What is done to a batch once its samples have their scores: learned from, rejected, corrected.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmd.config import DefenseConfig
from fedmd.defense.samples.correction import adversarial_correct, correct
from fedmd.defense.samples.detectors import Detector
from fedmd.defense.samples.outputs import TrustedSamples
from fedmd.defense.samples.pooling import Stopping
from fedmd.types import Action


@dataclass(frozen=True)
class ScoredBatch:
    """A batch as a response sees it: `x` [N, C, H, W], `y` [N], the score `before` [N], and who is `suspicious` [N].

    `clients` [N] are the senders, None where the caller knows of none. `trusted` gives the trusted set. `detector` and
    `stopping` are what `before` was measured with, and what was held against `threshold`.
    """

    current: nn.Module
    historical: nn.Module
    x: Tensor
    y: Tensor
    before: Tensor
    suspicious: Tensor
    threshold: float
    clients: Tensor | None
    trusted: Callable[[], TrustedSamples] | None
    detector: Detector
    stopping: Stopping


@dataclass(frozen=True)
class Decision:
    """What becomes of N samples: the new `x`, Action values [N], steps [N], the score `after` [N]."""

    x: Tensor
    actions: Tensor
    steps: Tensor
    after: Tensor


class Response:
    """A defence against poisoned samples; `config` has its settings.

    `uses_threshold`: it acts on `suspicious`, so that a threshold's promise on clean traffic can be watched.
    """

    uses_threshold: ClassVar[bool] = False

    def __init__(self, config: DefenseConfig) -> None:
        self.config = config

    @property
    def clip_norm(self) -> float | None:
        """The norm that the gradient of the step which follows is clipped to; None: it is not."""
        return None

    def decide(self, batch: ScoredBatch) -> Decision:
        """The batch to learn from."""
        raise NotImplementedError


class Accept(Response):
    """Learn from everything as it is (the paper's ST)."""

    def decide(self, batch: ScoredBatch) -> Decision:
        """Nothing changes."""
        return _every(batch, Action.ACCEPTED)


class Clip(Accept):
    """Learn from everything, with the gradient of every step clipped to the norm `clip_norm`."""

    @property
    def clip_norm(self) -> float | None:
        """As configured."""
        return self.config.clip_norm


class Frozen(Response):
    """Learn from nothing: the frozen model every defence must beat."""

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are rejected."""
        return _every(batch, Action.REJECTED)


class Drop(Response):
    """Reject what is above the threshold."""

    uses_threshold = True

    def decide(self, batch: ScoredBatch) -> Decision:
        """The suspicious are rejected."""
        actions = torch.where(batch.suspicious, Action.REJECTED, Action.ACCEPTED)
        return Decision(batch.x, actions, torch.zeros_like(actions), batch.before)


class Trim(Response):
    """Reject the share `trim_share` of the batch that scores highest, threshold or not: by current loss, loss trimming.

    Shen & Sanghavi, Learning with Bad Training Data via Iterative Trimmed Loss Minimization, ICML 2019: of N samples
    learn from the floor((1 - share) N) of the smallest loss. NaN counts as the largest, of equals the earlier stay.
    """

    def decide(self, batch: ScoredBatch) -> Decision:
        """Those behind the first (1 - share) N in the order of their scores are rejected."""
        n = len(batch.before)
        kept = math.floor(round((1 - self.config.trim_share) * n, 9))  # the round keeps 0.9 * 10 from becoming 8
        actions = torch.full((n,), Action.REJECTED, dtype=torch.int64, device=batch.x.device)
        actions[batch.before.argsort(stable=True)[:kept]] = Action.ACCEPTED
        return Decision(batch.x, actions, torch.zeros_like(actions), batch.before)


class DiscrepancyAwareCorrection(Response):
    """DSC, eq (6) of [MD23]: pull back what is above the threshold, then learn from it."""

    uses_threshold = True

    def decide(self, batch: ScoredBatch) -> Decision:
        """The suspicious are corrected."""
        correction = correct(
            batch.current,
            batch.historical,
            batch.x,
            batch.y,
            threshold=batch.threshold,
            step_size=self.config.step_size,
            radius=self.config.radius,
            max_steps=self.config.max_steps,
            stopping=batch.stopping,
            before=batch.before,
            clients=batch.clients,
            detector=batch.detector,
            trusted=batch.trusted,
        )
        actions = torch.where(correction.steps > 0, Action.CORRECTED, Action.ACCEPTED)
        return Decision(correction.x, actions, correction.steps, correction.after)


class AdversarialTraining(Response):
    """The paper's AT: the same inner loop for every sample, no threshold."""

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are moved, and not measured again."""
        x = adversarial_correct(
            batch.current,
            batch.x,
            batch.y,
            step_size=self.config.step_size,
            radius=self.config.radius,
            max_steps=self.config.max_steps,
        )
        moved = _every(batch, Action.CORRECTED)
        unmeasured = torch.full_like(batch.before, torch.nan)
        return Decision(x, moved.actions, torch.full_like(moved.steps, self.config.max_steps), unmeasured)


RESPONSES: dict[str, type[Response]] = {
    "none": Accept,
    "clip": Clip,
    "frozen": Frozen,
    "drop": Drop,
    "trim": Trim,
    "dsc": DiscrepancyAwareCorrection,
    "at": AdversarialTraining,
}


def _every(batch: ScoredBatch, action: Action) -> Decision:
    actions = torch.full((len(batch.x),), action, dtype=torch.int64, device=batch.x.device)
    return Decision(batch.x, actions, torch.zeros_like(actions), batch.before)
