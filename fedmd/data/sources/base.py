"""What every data source is, and the way from the configuration to an image set."""

from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, DataConfig
from fedmd.data.cache import cached_arrays
from fedmd.data.images import Samples
from fedmd.registry import Plugin
from fedmd.storage import digest
from fedmd.types import ImageSet


def splits(burn_in: float, trusted: float, attacker: float, test: float) -> dict[str, float]:
    """Sizes or shares of the parts, for a source's `defaults`."""
    return {"burn_in": burn_in, "trusted": trusted, "attacker": attacker, "test": test}


SHARES = splits(0.3, 0.05, 0.05, 0.2)  # of a set whose size nobody knows before it is read


class DataSource(Plugin):
    """A set of labelled images: a subclass decodes it. Its `defaults` are how it is divided and augmented."""

    defaults: ClassVar = {"splits": SHARES}

    def identity(self) -> str:
        """What changes whenever `decode` would return something else, for it is not called again before."""
        return self.params.model_dump_json()

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W] and labels int64 [N], >= 0; a training and a test part are joined.

        Downloads may be kept in `cache_dir`. Raises ConfigError, its sentence naming the key, where there are none.
        """
        raise NotImplementedError


def load_images(config: DataConfig, cache_dir: Path) -> ImageSet:
    """All images of the configured source, read-only, mapped from `cache_dir`. Classes are 0..max label.

    Raises:
        ConfigError: the source cannot be read; the sentence names the key.
    """
    source: DataSource = config.make()

    def build() -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
        images, labels = source.decode(cache_dir)
        if images.dtype != np.uint8 or images.ndim != 4 or labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise ConfigError(
                f"data.name: {source.label} must give images uint8 [N, C, H, W] and labels int64 [N], not "
                f"{images.dtype} {list(images.shape)} and {labels.dtype} {list(labels.shape)}."
            )
        return {"images": images, "labels": labels}

    which = [] if config.factory is None else [config.factory]
    key = f"images-{config.name}-{digest(*which, source.identity())}"
    stored = cached_arrays(cache_dir, key, ("images", "labels"), build)
    return ImageSet(stored["images"], stored["labels"], int(stored["labels"].max()) + 1)
