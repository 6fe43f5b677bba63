"""Which clients take part in a round, and what each holds: a function of (configuration, data, client, round)."""

from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from fedmd.config import ConfigError, RunConfig
from fedmd.data.augment import augment
from fedmd.data.cache import default_cache_dir
from fedmd.data.partition import Partition, cached_partition
from fedmd.data.split import Split
from fedmd.seeding import generator, numpy_generator
from fedmd.types import ImageSet, StreamBatch


def sample_clients(config: RunConfig, round: int) -> tuple[int, ...]:
    """The clients asked in `round`, ascending; a function of seed and round only. One draw serves a whole reply."""
    federation = config.federation
    asked_in = round - round % federation.batches_per_reply
    return _sampled(config.seed, asked_in, federation.clients, federation.sampled_clients)


def ever_asked(config: RunConfig) -> set[int]:
    """The clients that are asked in at least one round of a run."""
    asked: set[int] = set()
    for round in range(0, config.stream.rounds, config.federation.batches_per_reply):
        asked.update(sample_clients(config, round))
        if len(asked) == config.federation.clients:
            break
    return asked


@lru_cache(maxsize=16)  # every colluder of a round asks
def _sampled(seed: int, round: int, clients: int, size: int) -> tuple[int, ...]:
    drawn = numpy_generator(seed, "clients", round=round).choice(clients, size, replace=False)
    return tuple(sorted(drawn.tolist()))


class ClientStreams:
    """The clients' honest data streams in mode=stream. Cheap to build; partitions are worked out when first asked for.

    Time passes whether a client is asked or not: a round it sits out takes its samples along. Clients and
    rounds count from 0.

    Raises:
        ConfigError: published_replay asks for more burn-in images than there are.
    """

    def __init__(self, config: RunConfig, images: ImageSet, split: Split) -> None:
        self._config = config
        self._images = images
        self._split = split
        needed = config.federation.clients * config.stream.batch_size
        if config.stream.source == "published_replay" and needed > len(split.burn_in):
            raise ConfigError(
                f"stream.batch_size: published_replay sends clients * batch_size = {needed} burn-in images a "
                f"round, but data.splits.burn_in is {len(split.burn_in)}."
            )

    def batch(self, client: int, round: int) -> StreamBatch:
        """The `stream.batch_size` samples that `client` holds in `round`."""
        indices = self.indices(client, round)
        images = self._images.images[indices]
        if self._config.stream.source == "published_replay":
            randomness = generator(self._config.seed, "replay", client, round)
            images = augment(torch.from_numpy(images), self._config.data.augment, randomness).numpy()
        return StreamBatch(client, round, images, self._images.labels[indices])

    def sent(self, client: int, rounds: int) -> ImageSet:
        """The batches of rounds 0 to `rounds` - 1 as one set, in order."""
        batches = [self.batch(client, round) for round in range(rounds)]
        images, labels = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("images", "labels"))
        return ImageSet(images, labels, self._images.classes)

    def indices(self, client: int, round: int) -> NDArray[np.int64]:
        """Which images of the set `batch` draws.

        fresh: the client walks its partition in a seeded order, without replacement, and on through a new
        order each time it has seen everything (one batch may span two such epochs).
        published_replay: slice `client` of the first clients * batch_size burn-in images in every round.
        """
        size = self._config.stream.batch_size
        if self._config.stream.source == "published_replay":
            return self._split.burn_in[client * size : (client + 1) * size]
        own = self.partition(client)
        start, stop = round * size, (round + 1) * size
        epochs = range(start // len(own), (stop - 1) // len(own) + 1)
        walk = np.concatenate([self._order(client, epoch, len(own)) for epoch in epochs])
        skipped = epochs.start * len(own)
        indices: NDArray[np.int64] = own[walk[start - skipped : stop - skipped]]
        return indices

    def partition(self, client: int) -> NDArray[np.int64]:
        """Every image that `client` can ever send with source=fresh."""
        return self._split.stream[self._positions[client]]

    def _order(self, client: int, epoch: int, samples: int) -> NDArray[np.int64]:
        return numpy_generator(self._config.seed, "stream", client, epoch).permutation(samples)

    @property
    def outnumber_images(self) -> bool:
        """Whether there are more clients than images, so that clients have images in common."""
        fresh = self._config.stream.source == "fresh"
        return fresh and self._config.federation.clients > len(self._split.stream)

    @cached_property
    def _positions(self) -> Partition:
        config = self._config
        local = config.local.samples or config.local.batch_size
        return cached_partition(
            self._images.labels[self._split.stream],
            config.federation.clients,
            config.data.partition,
            config.seed,
            default_cache_dir(config.runtime.cache_dir),
            least=config.stream.batch_size if config.mode == "stream" else local,
        )


class LocalData:
    """Each client's fixed data set in mode=update: its partition, or with `local.samples` a seeded choice of it."""

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
