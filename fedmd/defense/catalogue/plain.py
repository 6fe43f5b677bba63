"""Defences that judge no sample: learning from everything, or from nothing."""

from typing import ClassVar

from pydantic import Field

from fedmd.config import Mode, Positive, Section
from fedmd.defense.base import Decision, Defense, ScoredBatch
from fedmd.registry import register_defense
from fedmd.types import Action


@register_defense("none")
class Undefended(Defense):
    """Plain training, the paper's ST."""

    modes: ClassVar[tuple[Mode, ...]] = ("stream", "update")

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are learned from as they are."""
        return Decision.for_all(batch, Action.ACCEPTED)


@register_defense("clip")
class GradientClipping(Defense):
    """Every sample is accepted, the server's step is bounded (a baseline of Pang et al., NeurIPS 2021)."""

    class Params(Section):
        """How far a step may go."""

        clip_norm: Positive = Field(1.0, description="L2 norm of the whole gradient, before momentum")

    params: Params

    @property
    def clip_norm(self) -> float | None:
        """As configured."""
        return self.params.clip_norm

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are learned from as they are."""
        return Decision.for_all(batch, Action.ACCEPTED)


@register_defense("frozen")
class Frozen(Defense):
    """No online learning at all: the bar every defence must clear."""

    def decide(self, batch: ScoredBatch) -> Decision:
        """All are rejected."""
        return Decision.for_all(batch, Action.REJECTED)
