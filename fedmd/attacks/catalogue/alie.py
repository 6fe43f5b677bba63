"""A little is enough [B19]: as far from the honest mean as the spread of the honest updates hides.

[B19] Baruch et al., A Little Is Enough: Circumventing Defenses for Distributed Learning, NeurIPS 2019.
"""

import math
from statistics import NormalDist

from pydantic import Field
from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, Team
from fedmd.attacks.distances import spread
from fedmd.config import NonNegative
from fedmd.registry import register_attack


def alie_z(clients: int, colluders: int) -> float:
    """z_max of [B19]: how many standard deviations the colluders may be off and still have a majority's support.

        s = ⌊n/2 + 1⌋ − m,   z = Φ⁻¹((n − m − s) / (n − m))

    With a majority of their own the colluders need no support and the paper's z is infinite; we let them seek that
    of one. Where z is negative (a lone attacker) there is no room, and we return 0.
    """
    honest = clients - colluders
    supporters = max(1, math.floor(clients / 2 + 1) - colluders)
    share = (honest - supporters) / honest if honest else 0.0
    return NormalDist().inv_cdf(share) if share > 0.5 else 0.0


@register_attack("alie")
class Alie(Attack):
    """A little is enough: mean − scale * std of the updates seen (Baruch et al., NeurIPS 2019)."""

    label = "ALIE"
    modes = ("update",)

    class Params(SeesUpdates):
        """How little."""

        scale: NonNegative | None = Field(None, description="in standard deviations; null: the paper's z")

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """μ − z σ coordinate by coordinate, over the honest updates seen."""
        z = alie_z(known.clients, known.colluders) if self.params.scale is None else self.params.scale
        return known.honest.mean(dim=0) - z * spread(known.honest)
