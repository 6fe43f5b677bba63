"""The part of a run that a client process derives from its configuration, kept while the process lives."""

from dataclasses import dataclass
from functools import lru_cache

from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.clients import ClientStreams, LocalData
from fedmd.data.shift import cached_shift, withheld
from fedmd.data.sources.base import load_images
from fedmd.data.split import Split, split_images
from fedmd.types import ImageSet


@dataclass(frozen=True)
class FederatedData:
    """Data and streams as server, clients and attackers agree on them, a function of the configuration alone."""

    config: RunConfig
    images: ImageSet
    split: Split
    streams: ClientStreams

    @property
    def local(self) -> LocalData:
        """What each client trains on in mode=update."""
        return LocalData(self.config, self.images, self.streams)


def load_federated_data(config: RunConfig) -> FederatedData:
    """Load (or map from the cache) the data, split it, move all but burn-in past the shift, prepare the streams."""
    cache, shift = default_cache_dir(config.runtime.cache_dir), config.stream.shift
    images = load_images(config.data, cache)
    split = split_images(images, config.data.splits, config.seed, withheld(shift, images.classes))
    images = cached_shift(images, split, shift, config.seed, cache)
    return FederatedData(config, images, split, ClientStreams(config, images, split))


@lru_cache(maxsize=4)
def federated_data_of(run: str) -> FederatedData:
    """`load_federated_data` for a configuration's JSON text, once a process."""
    return load_federated_data(RunConfig.parse(run))
