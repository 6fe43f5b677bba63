"""Defences that change samples, those of [MD23]; the mathematics are in `fedmd.defense.samples.correction`.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field

from fedmd.config import Count, Positive, Section, Share
from fedmd.defense.base import Decision, Defense, ScoredBatch
from fedmd.defense.samples.correction import adversarial_correct, correct
from fedmd.defense.samples.pooling import pooled
from fedmd.registry import register_defense
from fedmd.types import Action


class Descent(Section):
    """How far a sample is moved, and in which steps."""

    step_size: Positive = Field(0.02, description="of pixels in [0, 1]")
    radius: Share = Field(0.2, description="how far a pixel may move in all")
    max_steps: Count = Field(10, description="after which a sample is left, or rejected, as it is")


@register_defense("dsc")
class DiscrepancyAwareCorrection(Defense):
    """Discrepancy-aware Sample Correction, eq (6) of Zhu et al., ICML 2023: suspicious samples are pulled back.

    Two extensions are its defaults: a client's message is judged as a whole, and what is still above the threshold
    after the last step is rejected. `dsc_published` is as published.
    """

    label = "DSC"
    uses_threshold = True
    defaults: ClassVar[Mapping[str, object]] = {"stopping": "per_client"}

    class Params(Descent):
        """As of the correction."""

        beyond_mending: Literal["reject", "keep"] = Field(
            "reject", description="what is done with what is above the threshold after the last step"
        )

    params: Params

    def decide(self, batch: ScoredBatch) -> Decision:
        """The suspicious are corrected, and learned from where that has worked."""
        correction = correct(
            batch.current,
            batch.historical,
            batch.x,
            batch.y,
            threshold=batch.threshold,
            step_size=self.params.step_size,
            radius=self.params.radius,
            max_steps=self.params.max_steps,
            stopping=batch.stopping,
            before=batch.before,
            clients=batch.clients,
            detector=batch.detector,
            trusted=batch.trusted,
        )
        actions = torch.where(correction.steps > 0, Action.CORRECTED, Action.ACCEPTED)
        if self.params.beyond_mending == "reject":
            above = pooled(correction.after, batch.stopping, batch.clients) > batch.threshold
            actions = torch.where(above, Action.REJECTED, actions)
        return Decision(correction.x, actions, correction.steps, correction.after)


@register_defense("dsc_published")
class PublishedCorrection(DiscrepancyAwareCorrection):
    """DSC as in the published code: by the batch's mean discrepancy, threshold (7), an early snapshot as history."""

    label = "DSC, published"
    defaults: ClassVar[Mapping[str, object]] = {"stopping": "batch_mean"}
    companions: ClassVar[Mapping[str, str]] = {"threshold": "published", "history": "snapshot"}

    class Params(DiscrepancyAwareCorrection.Params):
        """As of the correction; every sample is learned from."""

        beyond_mending: Literal["reject", "keep"] = Field(
            "keep", description="what is done with what is above the threshold after the last step"
        )

    params: Params


@register_defense("at")
class AdversarialTraining(Defense):
    """The paper's adversarial-training baseline: every sample is corrected, no threshold."""

    label = "AT"

    class Params(Descent):
        """As of the correction."""

    params: Params

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are moved, and not measured again."""
        x = adversarial_correct(
            batch.current,
            batch.x,
            batch.y,
            step_size=self.params.step_size,
            radius=self.params.radius,
            max_steps=self.params.max_steps,
        )
        moved = Decision.for_all(batch, Action.CORRECTED)
        unmeasured = torch.full_like(batch.before, torch.nan)
        return Decision(x, moved.actions, torch.full_like(moved.steps, self.params.max_steps), unmeasured)
