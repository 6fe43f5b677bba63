"""The image sets that ship in packages."""

from pathlib import Path

import numpy as np
import pytest

from fedmd.config import DataConfig
from fedmd.data import sources
from fedmd.data.sources import load_images

PARTS = {"splits": {"burn_in": 1, "trusted": 1, "attacker": 1, "test": 1}, "partition": {"name": "iid"}}


@pytest.mark.parametrize(
    ("name", "shape", "first_label"), [("mnist5k", (5000, 1, 28, 28), 0), ("digits", (1797, 1, 8, 8), 0)]
)
def test_packaged_images_are_complete(name: str, shape: tuple[int, ...], first_label: int, tmp_path: Path) -> None:
    images = load_images(DataConfig(name=name, **PARTS), tmp_path)
    assert images.images.shape == shape and images.images.dtype == np.uint8
    assert images.labels.shape == shape[:1] and images.labels.dtype == np.int64
    assert images.classes == 10 and np.bincount(images.labels).min() > 170
    assert images.images.min() == 0 and images.images.max() == 255
    assert images.labels[0] == first_label
    assert len(np.unique(images.take(np.arange(500)).images, axis=0)) > 490


def test_a_second_load_maps_the_file_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = DataConfig(name="digits", **PARTS)
    first = load_images(config, tmp_path)
    monkeypatch.setitem(sources.SOURCES, "digits", sources.Source(sources.SOURCES["digits"].identity, None))
    second = load_images(config, tmp_path)
    assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
    assert isinstance(second.images.base, np.memmap) and not second.images.flags.writeable
