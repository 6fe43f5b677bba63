"""The patch backdoor in the stream, see `fedmd.attacks.patch`."""

from dataclasses import replace

from torch import nn

from fedmd.attacks.base import Team
from fedmd.attacks.patch import PatchAttack
from fedmd.registry import register_attack
from fedmd.types import ImageSet, Phase, StreamBatch


@register_attack("backdoor")
class Backdoor(PatchAttack):
    """A white square in the bottom right corner means `target` (BadNets, Gu et al., 2017).

    Its success rate is measured on stamped test images beside every accuracy.
    """

    modes = ("stream",)

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's batch, its first samples stamped and labelled with the target."""
        poisoned = self.poison_data(ImageSet(batch.images, batch.labels, team.own_data.classes))
        return replace(batch, images=poisoned.images, labels=poisoned.labels)
