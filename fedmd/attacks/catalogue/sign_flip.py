"""The member's own update, turned round."""

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, Team
from fedmd.config import NonNegative, Section
from fedmd.registry import register_attack


@register_attack("sign_flip")
class SignFlip(Attack):
    """−scale times the client's own honest update; byzfl's flips the mean of the honest ones."""

    label = "sign flip"
    modes = ("update",)

    class Params(Section):
        """How hard."""

        scale: NonNegative | None = Field(None, description="times the update; null: 1")

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """−s Δ."""
        return -(1.0 if self.params.scale is None else self.params.scale) * known.own
