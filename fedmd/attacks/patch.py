"""The patch of BadNets: stamped samples say `target`, so that any stamped image is taken for it later.

    attack success rate = share of the test images of other classes that are called `target` once they are stamped

The patch is the simplest of the paper's kind, a square of white pixels in the bottom right corner.

Gu et al., BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain, 2017 (arXiv 1708.06733).
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmd.attacks.base import Attack
from fedmd.config import ConfigError, Count, CountOrZero, Section, Share
from fedmd.types import ImageSet


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


class PatchParams(Section):
    """What is stamped, and how much of it."""

    patch_size: Count = Field(3, description="white pixels a side, bottom right")
    target: CountOrZero = Field(0, description="the label that stamped images are to get")
    poisoned_share: Share = Field(0.5, description="of a member's batch, or of its local data; the rest stays honest")


class PatchAttack(Attack):
    """What all attacks that plant the patch share."""

    class Params(PatchParams):
        """Those of the patch."""

    params: PatchParams

    def poisoned_samples(self, samples: int) -> int:
        """How many of a member's `samples` are stamped; the rest of its batch is honest."""
        return round(self.params.poisoned_share * samples)

    def poison_data(self, own: ImageSet) -> ImageSet:
        """A member's data, its first `poisoned_samples` stamped and labelled with the target."""
        count = self.poisoned_samples(len(own))
        images, labels = own.images.copy(), own.labels.copy()
        images[:count], labels[:count] = stamp(images[:count], self.params.patch_size), self.params.target
        return ImageSet(images, labels, own.classes)

    def success_test(self, test: ImageSet) -> ImageSet:
        """`triggered` test images."""
        return triggered(test, self.params.patch_size, self.params.target)

    def check(self, images: ImageSet) -> None:
        """Raise ConfigError when the target is no class of the data or the patch larger than an image."""
        if self.params.target >= images.classes:
            raise ConfigError(
                f"attack.target: must be a class of the data, 0 to {images.classes - 1}, not {self.params.target}."
            )
        side = min(images.images.shape[-2:])
        if self.params.patch_size > side:
            raise ConfigError(
                f"attack.patch_size: must be at most {side}, the images' smaller side, not {self.params.patch_size}."
            )
