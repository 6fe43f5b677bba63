"""Defences that leave samples out."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field

from fedmd.config import Section, Share
from fedmd.defense.base import Decision, Defense, ScoredBatch
from fedmd.registry import register_defense
from fedmd.types import Action


@register_defense("drop")
class Drop(Defense):
    """Samples above the threshold are rejected instead of corrected."""

    uses_threshold = True

    def decide(self, batch: ScoredBatch) -> Decision:
        """The suspicious are rejected."""
        actions = torch.where(batch.suspicious, Action.REJECTED, Action.ACCEPTED)
        return Decision(batch.x, actions, torch.zeros_like(actions), batch.before)


@register_defense("recommended")
class Recommended(Drop):
    """What won among all we tried: clients' messages above the threshold of `combined` are rejected (extension).

    Not the papers' method: the discrepancy is joined by a rival, the Mahalanobis distance, and samples are rejected
    instead of corrected. `docs/results.md` has the race.
    """

    defaults: ClassVar[Mapping[str, object]] = {"detector": "combined", "stopping": "per_client"}


@register_defense("trim")
class Trim(Defense):
    """Loss trimming: the share of a round's samples with the largest score, by default the loss, is rejected.

    Shen & Sanghavi, Learning with Bad Training Data via Iterative Trimmed Loss Minimization, ICML 2019: of N samples
    learn from the floor((1 - share) N) of the smallest loss. NaN counts as the largest, of equals the earlier stay. By
    another detector than the current loss it is an extension.
    """

    uses_score = True
    defaults: ClassVar[Mapping[str, object]] = {"detector": "current_loss"}

    class Params(Section):
        """How many."""

        trim_share: Share = Field(0.2, description="set it to at least the share of poison expected")

    params: Params

    def decide(self, batch: ScoredBatch) -> Decision:
        """Those behind the first (1 - share) N in the order of their scores are rejected, threshold or not."""
        n = len(batch.before)
        kept = math.floor(round((1 - self.params.trim_share) * n, 9))  # the round keeps 0.9 * 10 from becoming 8
        actions = torch.full((n,), Action.REJECTED, dtype=torch.int64, device=batch.x.device)
        actions[batch.before.argsort(stable=True)[:kept]] = Action.ACCEPTED
        return Decision(batch.x, actions, torch.zeros_like(actions), batch.before)
