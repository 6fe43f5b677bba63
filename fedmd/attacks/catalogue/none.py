"""Nobody attacks."""

from typing import ClassVar

from fedmd.attacks.base import Attack
from fedmd.registry import register_attack


@register_attack("none")
class NoAttack(Attack):
    """Nobody attacks: every client is honest in every round."""

    label = "no attack"
    phases = ()
    defaults: ClassVar = {"fraction": 0.0}
