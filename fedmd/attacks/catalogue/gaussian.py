"""Noise in place of the update; byzfl's has a fixed σ, ours follows the honest updates."""

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, Team
from fedmd.attacks.white_noise import white_noise
from fedmd.config import NonNegative
from fedmd.registry import register_attack


@register_attack("gaussian")
class Gaussian(Attack):
    """Gaussian noise instead of an update, many times as long as an honest one."""

    label = "Gaussian"
    modes = ("update",)

    class Params(SeesUpdates):
        """How long."""

        scale: NonNegative | None = Field(None, description="its length in honest updates; null: 10")

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """`white_noise` of `scale` honest updates."""
        return white_noise(known.honest, 10.0 if self.params.scale is None else self.params.scale, known.generator)
