"""Inner-product manipulation [X20]: −ε μ of the honest updates.

Small ε (0.1) deceives Krum; the plain mean turns round only above ε = (n − m)/m.

[X20] Xie et al., Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation, UAI 2020.
"""

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, Team
from fedmd.config import NonNegative
from fedmd.registry import register_attack


@register_attack("ipm")
class InnerProductManipulation(Attack):
    """Inner-product manipulation: −scale * mean of the updates seen (Xie et al., UAI 2020)."""

    label = "IPM"
    modes = ("update",)

    class Params(SeesUpdates):
        """How hard."""

        scale: NonNegative | None = Field(None, description="times the mean; null: 2")

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """−ε μ."""
        return -(2.0 if self.params.scale is None else self.params.scale) * known.honest.mean(dim=0)
