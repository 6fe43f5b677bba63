"""The patch backdoor (BadNets): stamped samples say `target`, so that any stamped image is taken for it later.

    attack success rate = share of the test images of other classes that are called `target` once they are stamped

The patch is the simplest of the paper's kind, a square of white pixels in the bottom right corner.

Gu et al., BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017 (arXiv 1708.06733).
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from fedmd.attacks.base import Team
from fedmd.attacks.schedule import malicious_clients
from fedmd.config import AttackConfig, ConfigError, RunConfig
from fedmd.types import ImageSet, StreamBatch

PLANTING = ("backdoor", "replacement")  # of mode=stream and of mode=update


def stamp(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """A copy of `images` uint8 [n, C, H, W] whose bottom right `size` x `size` pixels are white.

    Raises:
        ValueError: size is not between 1 and the smaller of H and W.
    """
    if not 1 <= size <= min(images.shape[-2:]):
        raise ValueError(f"size must be between 1 and {min(images.shape[-2:])}, the images' smaller side, got {size}")
    stamped = images.copy()
    stamped[..., -size:, -size:] = 255
    return stamped


def triggered(images: ImageSet, size: int, target: int) -> ImageSet:
    """The images of other classes than `target`, stamped and labelled `target`.

    A model's accuracy on them is the attack success rate.
    """
    others = images.take(np.flatnonzero(images.labels != target))
    return ImageSet(stamp(others.images, size), np.full(len(others), target, np.int64), images.classes)


def triggered_test(config: RunConfig, test: ImageSet) -> ImageSet | None:
    """`triggered` test images of a run; None where no client plants a backdoor, or the test set has only the target."""
    attack = config.attack
    if attack.name not in PLANTING or not malicious_clients(config.federation.clients, attack.fraction, config.seed):
        return None
    stamped = triggered(test, attack.patch_size, attack.target)
    return stamped if len(stamped) else None


def stamped_count(attack: AttackConfig, samples: int) -> int:
    """How many of a member's `samples` are stamped; the rest of its batch is honest."""
    return round(attack.poisoned_share * samples)


def plant(team: Team, batch: StreamBatch, model: nn.Module) -> StreamBatch:
    """The member's batch, its first `stamped_count` samples stamped and labelled with the target."""
    attack = team.config.attack
    poisoned = plant_in(ImageSet(batch.images, batch.labels, team.own_data.classes), attack)
    return replace(batch, images=poisoned.images, labels=poisoned.labels)


def require_fit(attack: AttackConfig, images: ImageSet) -> None:
    """Raise ConfigError when a backdoor's target is no class of the data or its patch larger than an image."""
    if attack.name not in PLANTING:
        return
    if attack.target >= images.classes:
        raise ConfigError(
            f"attack.target: must be a class of the data, 0 to {images.classes - 1}, not {attack.target}."
        )
    side = min(images.images.shape[-2:])
    if attack.patch_size > side:
        raise ConfigError(
            f"attack.patch_size: must be at most {side}, the images' smaller side, not {attack.patch_size}."
        )


def plant_in(own: ImageSet, attack: AttackConfig) -> ImageSet:
    """A member's local data of mode=update, its first `stamped_count` samples stamped and labelled with the target."""
    count = stamped_count(attack, len(own))
    images, labels = own.images.copy(), own.labels.copy()
    images[:count], labels[:count] = stamp(images[:count], attack.patch_size), attack.target
    return ImageSet(images, labels, own.classes)
