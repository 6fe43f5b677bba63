"""Model replacement [B20]: s times the update trained on backdoored data, s = n/m unless told.

With n/m, m colluders that trained alike put their model in the place of the plain average (server rate 1, equal
weights), once the honest updates have become small.

[B20] Bagdasaryan et al., How To Backdoor Federated Learning, AISTATS 2020.
"""

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Knowledge, Team
from fedmd.attacks.patch import PatchAttack, PatchParams
from fedmd.config import NonNegative
from fedmd.registry import register_attack


@register_attack("replacement")
class Replacement(PatchAttack):
    """Model replacement: an update trained on stamped images, enlarged (Bagdasaryan et al., AISTATS 2020)."""

    modes = ("update",)

    class Params(PatchParams):
        """And by how much."""

        scale: NonNegative | None = Field(
            None, description="times the update; null: clients / colluders of the round, to take the mean's place"
        )

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """s Δ of the member's own training."""
        scale = known.clients / known.colluders if self.params.scale is None else self.params.scale
        return scale * known.own
