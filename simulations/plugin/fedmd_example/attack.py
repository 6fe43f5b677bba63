"""An attack for both modes."""

from dataclasses import replace

import numpy as np
from pydantic import Field

from fedmd.attacks.base import Attack
from fedmd.config import Section, Share
from fedmd.types import ImageSet


class Fade(Attack):
    """Images faded towards grey: poor data rather than a crafted attack."""

    class Params(Section):
        strength: Share = Field(0.5, description="0: as they are, 1: all grey")

    params: Params

    def poison(self, team, batch, phase, model):
        """mode=stream: the member's batch, faded."""
        return replace(batch, images=self._faded(batch.images))

    def poison_data(self, own):
        """mode=update: the data that a member trains on, faded."""
        return ImageSet(self._faded(own.images), own.labels, own.classes)

    def update(self, team, known):
        """mode=update: what it learned from them."""
        return known.own

    def _faded(self, images):
        return np.rint(images + self.params.strength * (128.0 - images)).astype(np.uint8)
