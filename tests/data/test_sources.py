"""The image sets that ship in packages, and a user's own source."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmd.config import ConfigError, DataConfig
from fedmd.data.sources.base import load_images
from fedmd.data.sources.packaged import Digits
from fedmd.models import model_for
from fedmd.registry import DATA, MODELS, resolving
from fedmd.runs.compose import compose

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
    monkeypatch.setattr(Digits, "decode", None)
    second = load_images(config, tmp_path)
    assert np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)
    assert isinstance(second.images.base, np.memmap) and not second.images.flags.writeable


@pytest.fixture
def stripes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_fedmd_data.py").write_text(
        "import numpy as np\n"
        "from fedmd.config import Section\n"
        "from fedmd.data.sources.base import DataSource\n"
        "class Stripes(DataSource):\n"
        "    class Params(Section):\n"
        "        level: int = 9\n"
        "    def decode(self, cache_dir):\n"
        "        return np.full((6, 1, 4, 4), self.params.level, np.uint8), np.arange(6) % 3\n"
        "def linear(channels, classes, image_size):\n"
        "    from torch import nn\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size[0] * image_size[1], classes))\n"
        "class Floats(Stripes):\n"
        "    def decode(self, cache_dir):\n"
        "        return np.zeros((6, 1, 4, 4)), np.arange(6)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_fedmd_data", raising=False)
    return "my_fedmd_data"


def test_a_source_of_the_user_s_own_and_its_settings(stripes: str, tmp_path: Path) -> None:
    for level in (9, 7):  # another setting is another file in the cache
        own = DataConfig(name="custom", factory=f"{stripes}:Stripes", params={"level": level}, **PARTS)
        images = load_images(own, tmp_path)
        assert images.classes == 3 and images.images.shape == (6, 1, 4, 4) and (images.images == level).all()


def test_a_source_that_gives_no_pixels_gets_one_sentence(stripes: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.name: Floats must give images uint8 .* not float64 \[6, 1, 4, 4\]"):
        load_images(DataConfig(name="custom", factory=f"{stripes}:Floats", **PARTS), tmp_path)


def test_an_installed_package_brings_a_source_and_a_model(stripes: str, tmp_path: Path) -> None:
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[fedmd.data]\nstripes = {stripes}:Stripes\n[fedmd.models]\nlinear = {stripes}:linear\n"
    )
    importlib.invalidate_caches()
    try:
        config = compose(["data=stripes", "data.level=5", "model=linear"]).config
        with resolving("installed"):  # as on a deployed node
            images = load_images(config.data, tmp_path)
            model = model_for(config.model, images, seed=0)
        assert (images.images == 5).all() and model(images.tensors()[0]).shape == (6, 3)
        assert {each.name: each.origin for each in DATA.listed()}["stripes"] == "theirs"
    finally:
        DATA._plugins.pop("stripes", None)
        MODELS._plugins.pop("linear", None)
