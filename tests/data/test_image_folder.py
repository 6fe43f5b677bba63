"""A folder per class: labels, sizes, kinds, and one sentence for what is wrong."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedmd.config import ConfigError, DataConfig
from fedmd.data.sources.base import load_images
from fedmd.types import ImageSet

PARTS = {"splits": {"burn_in": 1, "trusted": 1, "attacker": 1, "test": 1}, "partition": {"name": "iid"}}
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


def save(file: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(file)


def read(path: Path | str, cache: Path, **settings: Any) -> ImageSet:
    return load_images(DataConfig(name="image_folder", path=str(path), **settings, **PARTS), cache / "cache")


def test_classes_are_the_sorted_folders(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    for i, file in enumerate(("dog/a.png", "dog/deeper/b.bmp", "cat/z.png", "emu/q.tiff")):
        save(root / file, COLOUR[i])
    (root / "cat/notes.txt").write_text("no image")
    images = read(root, tmp_path)
    assert images.labels.tolist() == [0, 1, 1, 2] and images.classes == 3
    assert np.array_equal(images.images, COLOUR[[2, 0, 1, 3]].transpose(0, 3, 1, 2))


def test_grey_stays_grey_until_one_image_is_in_colour(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "a/1.png", COLOUR[0, ..., 0])
    save(root / "b/1.png", COLOUR[1, ..., 0])
    assert np.array_equal(read(root, tmp_path).images, COLOUR[:2, None, ..., 0])
    save(root / "b/2.png", COLOUR[2], "RGBA")
    images = read(root, tmp_path)
    assert images.images.shape == (3, 3, 5, 7)
    assert np.array_equal(images.images[2], COLOUR[2].transpose(2, 0, 1))
    assert np.array_equal(images.images[0], np.repeat(COLOUR[0, None, ..., 0], 3, 0))


def test_one_size_on_request(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "a/1.png", np.full((4, 10, 3), 77, np.uint8))
    save(root / "b/1.png", np.repeat(np.repeat(COLOUR[1, :2, :3], 3, 0), 3, 1))
    with pytest.raises(ConfigError, match=r"^data\.image_size: must be set, .*b/1\.png is 9x6 .* 10x4 colour"):
        read(root, tmp_path)
    images = read(root, tmp_path, image_size=(6, 9))
    assert images.images.shape == (2, 3, 6, 9) and (images.images[0] == 77).all()
    assert np.array_equal(images.images[1, :, ::3, ::3], COLOUR[1, :2, :3].transpose(2, 0, 1))


def test_several_folders_join_if_they_have_the_same_classes(tmp_path: Path) -> None:
    for i, file in enumerate(("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")):
        save(tmp_path / file, COLOUR[i])
    images = read(f"{tmp_path}/train, {tmp_path}/test", tmp_path)
    assert images.labels.tolist() == [0, 1, 0, 1] and np.array_equal(images.images, COLOUR[:4].transpose(0, 3, 1, 2))
    save(tmp_path / "test/c/1.png", COLOUR[4])
    with pytest.raises(ConfigError, match=r"^data\.path: .*test has the classes a, b, c, but .*train has a, b\.$"):
        read(f"{tmp_path}/train,{tmp_path}/test", tmp_path)


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for i in range(2):
        save(tmp_path / "root/a/1.bmp", COLOUR[i])
        os.utime(tmp_path / "root/a/1.bmp", ns=(i, i))
        assert np.array_equal(read(tmp_path / "root", tmp_path).images[0], COLOUR[i].transpose(2, 0, 1))


def test_wrong_folders_get_one_sentence(tmp_path: Path) -> None:
    save(tmp_path / "parts/train/cat/1.png", COLOUR[0])
    save(tmp_path / "parts/test/cat/1.png", COLOUR[0])
    save(tmp_path / "flat/1.png", COLOUR[0])
    save(tmp_path / "hollow/a/1.png", COLOUR[0])
    (tmp_path / "hollow/b").mkdir()
    (tmp_path / "damaged/a").mkdir(parents=True)
    (tmp_path / "damaged/a/1.png").write_bytes(b"no image")
    for folder, sentence in (
        ("nowhere", r"^data\.path: there is no folder .*nowhere\.$"),
        ("parts", r"^data\.path: .*parts has the folders test, train instead of one for every class; name them"),
        ("flat", r"^data\.path: .*flat must hold a folder of images for every class \(.*\)\.$"),
        ("hollow", r"^data\.path: .*hollow must hold a folder of images for every class \(.* classes b\)\.$"),
        ("damaged", r"^data\.path: the image in .*damaged/a/1\.png cannot be decoded\.$"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read(tmp_path / folder, tmp_path)
