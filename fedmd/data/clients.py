"""Each client's fixed local data set in mode=update."""

import numpy as np
from numpy.typing import NDArray

from fedmd.config import RunConfig
from fedmd.data.stream import ClientStreams
from fedmd.seeding import numpy_generator
from fedmd.types import ImageSet


class LocalData:
    """A client's partition of the stream part, the same in every round; with `local.samples` a seeded choice of it."""

    def __init__(self, config: RunConfig, images: ImageSet, streams: ClientStreams) -> None:
        self._config = config
        self._images = images
        self._streams = streams

    def of(self, client: int) -> ImageSet:
        """The images that `client` trains on, in a fixed order."""
        return self._images.take(self.indices(client))

    def indices(self, client: int) -> NDArray[np.int64]:
        """Which images of the set they are."""
        own, cap = self._streams.partition(client), self._config.local.samples
        if cap is None or cap >= len(own):
            return own
        return numpy_generator(self._config.seed, "local data", client).permutation(own)[:cap]
