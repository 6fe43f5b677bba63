"""A disguised free rider [F21]: nothing learned, only noise.

[F21] lets the noise decay by a schedule set from the first rounds; ours follows the honest updates seen, which shrink
as the model converges.

[F21] Fraboni et al., Free-rider Attacks on Model Aggregation in Federated Learning, AISTATS 2021.
"""

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, Team
from fedmd.attacks.white_noise import white_noise
from fedmd.config import NonNegative
from fedmd.registry import register_attack


@register_attack("free_rider")
class FreeRider(Attack):
    """A disguised free rider: a little noise, nothing learned (Fraboni et al., AISTATS 2021)."""

    label = "free rider"
    modes = ("update",)

    class Params(SeesUpdates):
        """How long."""

        scale: NonNegative | None = Field(
            None, description="the noise's length in honest updates, 0 is undisguised; null: 0.1"
        )

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """`white_noise` of `scale` honest updates."""
        return white_noise(known.honest, 0.1 if self.params.scale is None else self.params.scale, known.generator)
