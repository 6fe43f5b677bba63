"""Data sets as `datasets` hands them over, from disk instead of the Hub, and one sentence without network."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from fedmd.config import ConfigError, DataConfig
from fedmd.data.sources.base import load_images
from fedmd.types import ImageSet

PARTS = {"splits": {"burn_in": 1, "trusted": 1, "attacker": 1, "test": 1}, "partition": {"name": "iid"}}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
NAMES = datasets.ClassLabel(names=["ant", "bee", "cow"])


def rows(which: slice, labels: list[int]) -> datasets.Dataset:
    features = datasets.Features({"img": datasets.Image(), "label": NAMES, "text": datasets.Value("string")})
    pictures = [Image.fromarray(pixels) for pixels in PIXELS[which]]
    columns = {"img": pictures, "label": labels, "text": ["x"] * len(labels)}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the Hub has; a value that is an error is raised."""
    contents: dict[str, Any] = {}

    def load_dataset(name: str) -> Any:
        if isinstance(contents[name], Exception):
            raise contents[name]
        return contents[name]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return contents


def read(name: str, cache: Path, **settings: Any) -> ImageSet:
    return load_images(DataConfig(name="huggingface", dataset=name, **settings, **PARTS), cache / "cache")


def test_train_and_test_are_joined_and_other_splits_left_out(hub: dict[str, Any], tmp_path: Path) -> None:
    parts = {"test": rows(slice(2, 4), [2, 0]), "extra": rows(slice(4, 5), [0]), "train": rows(slice(0, 2), [1, 0])}
    hub["me/pets"] = datasets.DatasetDict(parts)
    images = read("me/pets", tmp_path)
    assert np.array_equal(images.images, PIXELS[:4].transpose(0, 3, 1, 2))
    assert images.labels.tolist() == [1, 0, 2, 0] and images.classes == 3
    assert read("me/pets", tmp_path, image_size=(8, 8)).images.shape == (4, 3, 8, 8)


def test_a_folder_on_disk_through_the_real_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "set").mkdir()
    rows(slice(0, 3), [2, 0, 1]).to_parquet(tmp_path / "set/train-0.parquet")
    images = read(str(tmp_path / "set"), tmp_path)
    assert np.array_equal(images.images, PIXELS[:3].transpose(0, 3, 1, 2)) and images.labels.tolist() == [2, 0, 1]


def test_wrong_columns_and_labels_get_one_sentence(hub: dict[str, Any], tmp_path: Path) -> None:
    hub["me/pets"] = datasets.DatasetDict({"train": rows(slice(0, 2), [0, -1])})
    for settings, sentence in (
        ({"image_column": "image"}, r"^data\.image_column: me/pets \(train\) has no column 'image'; it has img, label"),
        ({"image_column": "label"}, r"^data\.image_column: 'label' of me/pets \(train\) must hold bytes"),
        ({"label_column": "text"}, r"^data\.label_column: 'text' of .* must hold integers, not string\.$"),
        ({}, r"^data\.label_column: .* that of row 1 of me/pets \(train\) is -1\.$"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read("me/pets", tmp_path, **settings)


def test_without_network_one_sentence_says_what_else_works(hub: dict[str, Any], tmp_path: Path) -> None:
    hub["me/pets"] = ConnectionError("Couldn't reach 'me/pets' on the Hub (LocalEntryNotFoundError)\nand more.")
    sentence = (
        r"^data\.dataset: 'me/pets' could not be had from the Hugging Face Hub \(Couldn't reach .*\); with its Parquet "
        r"files on disk, use data=parquet data\.path=FOLDER\.$"
    )
    with pytest.raises(ConfigError, match=sentence):
        read("me/pets", tmp_path)
