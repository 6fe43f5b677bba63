"""Min-Sum of [SH21], see `fedmd.attacks.distances`."""

from torch import Tensor

from fedmd.attacks.base import Attack, Knowledge, Team
from fedmd.attacks.distances import DistanceParams, min_sum
from fedmd.registry import register_attack


@register_attack("min_sum")
class MinSum(Attack):
    """Min-Sum: its squared distances sum up to no more than those of an update seen (Shejwalkar & Houmansadr, 2021)."""

    label = "Min-Sum"
    modes = ("update",)

    class Params(DistanceParams):
        """Along which perturbation."""

    params: Params

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """`min_sum` of the updates seen."""
        return min_sum(known.honest, self.params.perturbation)
