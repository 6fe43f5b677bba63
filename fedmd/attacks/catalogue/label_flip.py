"""Label flipping: the images are the client's own, the labels are mirrored.

    y -> L − 1 − y,   L the number of classes

With an odd L the middle class keeps its label.

Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX Security 2020.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmd.attacks.base import Attack, Knowledge, Team
from fedmd.registry import register_attack
from fedmd.types import ImageSet, Phase, StreamBatch


def flip_labels(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """`labels` [n] in [0, classes), mirrored; a new array."""
    return classes - 1 - labels


@register_attack("label_flip")
class LabelFlip(Attack):
    """Honest images, labels y -> classes - 1 - y (Fang et al., USENIX Security 2020)."""

    label = "label flip"

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's batch with mirrored labels."""
        return replace(batch, labels=flip_labels(batch.labels, team.own_data.classes))

    def poison_data(self, own: ImageSet) -> ImageSet:
        """The member's local data with mirrored labels."""
        return ImageSet(own.images, flip_labels(own.labels, own.classes), own.classes)

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """The client's own update as it is: the poison is in the labels it was trained on."""
        return known.own
