"""Label flipping: the images are the client's own, the labels are mirrored.

    y -> L − 1 − y,   L the number of classes

With an odd L the middle class keeps its label.

Fang et al., Local Model Poisoning Attacks to Byzantine-Robust Federated Learning, USENIX Security 2020.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmd.attacks.base import Team
from fedmd.types import StreamBatch


def flip_labels(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """`labels` [n] in [0, classes), mirrored; a new array."""
    return classes - 1 - labels


def flip(team: Team, batch: StreamBatch, model: nn.Module) -> StreamBatch:
    """The member's batch with mirrored labels."""
    return replace(batch, labels=flip_labels(batch.labels, team.own_data.classes))
