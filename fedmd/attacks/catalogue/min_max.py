"""Min-Max of [SH21], see `fedmd.attacks.distances`."""

from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, Team
from fedmd.attacks.distances import DistanceParams, min_max
from fedmd.registry import register_attack


@register_attack("min_max")
class MinMax(Attack):
    """Min-Max: no farther from any update seen than two of these are apart (Shejwalkar & Houmansadr, 2021)."""

    label = "Min-Max"
    modes = ("update",)

    class Params(DistanceParams):
        """Along which perturbation."""

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """`min_max` of the updates seen."""
        return min_max(known.honest, self.params.perturbation)
