"""Parquet files with images: both layouts, and one sentence for everything that can be wrong."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fedmd.config import ConfigError, DataConfig
from fedmd.data.sources.base import load_images
from fedmd.data.split import split_images
from fedmd.runs.compose import compose
from fedmd.types import ImageSet

CIFAR10 = Path("/work/shared/data/cifar10")
PARTS = {"splits": {"burn_in": 1, "trusted": 1, "attacker": 1, "test": 1}, "partition": {"name": "iid"}}


def png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def colour(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 5, 7, 3), dtype=np.uint8)


def write(path: Path, images: list[Any], labels: list[Any], layout: str = "struct") -> Path:
    cells = [{"bytes": image, "path": None} for image in images] if layout == "struct" else images
    pq.write_table(pa.table({"img": cells, "label": labels}), path)
    return path


def read(path: Path | str, cache: Path, **settings: Any) -> ImageSet:
    return load_images(DataConfig(name="parquet", path=str(path), **settings, **PARTS), cache / "cache")


@pytest.mark.parametrize("layout", ["struct", "bytes"])
def test_both_layouts_decode_to_the_same_pixels(layout: str, tmp_path: Path) -> None:
    pixels = colour(4)
    images = read(write(tmp_path / "a.parquet", [png(p) for p in pixels], [2, 0, 1, 2], layout), tmp_path)
    assert np.array_equal(images.images, pixels.transpose(0, 3, 1, 2))
    assert images.labels.tolist() == [2, 0, 1, 2] and images.labels.dtype == np.int64 and images.classes == 3


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    pixels = colour(2)[..., 0]
    images = read(write(tmp_path / "a.parquet", [png(p) for p in pixels], [0, 1]), tmp_path)
    assert np.array_equal(images.images, pixels[:, None])


def test_a_folder_a_list_and_a_file_name_the_same_rows(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    pixels = colour(4)
    one = write(folder / "1.parquet", [png(p) for p in pixels[:1]], [0])
    two = write(folder / "2.parquet", [png(p) for p in pixels[1:]], [1, 2, 3])
    for path in (folder, f"{one}, {two}"):
        images = read(path, tmp_path)
        assert np.array_equal(images.images, pixels.transpose(0, 3, 1, 2))
        assert images.labels.tolist() == [0, 1, 2, 3]
    assert read(f"{two},{one}", tmp_path).labels.tolist() == [1, 2, 3, 0]


def test_changed_content_under_the_same_name_is_read_anew(tmp_path: Path) -> None:
    for seed in (0, 1):
        path = write(tmp_path / "a.parquet", [png(p) for p in colour(2, seed)], [0, 1])
        assert np.array_equal(read(path, tmp_path).images, colour(2, seed).transpose(0, 3, 1, 2))


def test_other_column_names(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(colour(1)[0])], "fine_label": [4]}), tmp_path / "a.parquet")
    images = read(tmp_path / "a.parquet", tmp_path, image_column="image", label_column="fine_label")
    assert images.classes == 5


GOOD = png(colour(1)[0])


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        ([GOOD, b"no image"], [0, 1], r"^data\.image_column: the image in row 1 of .*a\.parquet cannot be decoded\.$"),
        ([GOOD, GOOD[:60]], [0, 1], r"^data\.image_column: the image in row 1 of .* cannot be decoded\.$"),
        ([GOOD, None], [0, 1], r"^data\.image_column: row 1 of .* has no image bytes\.$"),
        ([GOOD, GOOD], [0, -3], r"^data\.label_column: .* that of row 1 of .* is -3\.$"),
        ([GOOD, GOOD], [None, 1], r"^data\.label_column: .* that of row 0 of .* is missing\.$"),
        (
            [GOOD, GOOD],
            [0.5, 1.0],
            r"^data\.label_column: no column holds integers in .* name one of img .*, label \(double\)",
        ),
        (["a", "b"], [0, 1], r"^data\.image_column: no column holds bytes .* name one of img \(string\)"),
        (
            [GOOD, png(colour(1)[0, :4])],
            [0, 1],
            r"^data\.path: all images must have one size .* row 1 of .* is 7x4 colour and the first image 7x5 colour",
        ),
        ([GOOD, png(colour(1)[0], "L")], [0, 1], r"^data\.path: .* is 7x5 grey and the first image 7x5 colour"),
        ([png(np.zeros((5, 7), np.uint16))], [0], r"^data\.image_column: row 0 of .* unsupported pixels \(mode I"),
    ],
)
def test_bad_rows_get_one_sentence(images: list[Any], labels: list[Any], sentence: str, tmp_path: Path) -> None:
    layout = "bytes" if isinstance(images[0], str) else "struct"
    with pytest.raises(ConfigError, match=sentence):
        read(write(tmp_path / "a.parquet", images, labels, layout), tmp_path)


def test_bad_paths_and_columns_get_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [GOOD], [0])
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("hello, I am no Parquet file at all")
    pq.write_table(pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), tmp_path / "none")
    for asked, settings, sentence in (
        (tmp_path / "missing.parquet", {}, r"^data\.path: there is no file .*missing\.parquet\.$"),
        (tmp_path / "empty", {}, r"^data\.path: the folder .*empty has no \.parquet files\.$"),
        (tmp_path / "text.parquet", {}, r"^data\.path: .*text\.parquet is not a Parquet file\.$"),
        (tmp_path / "none", {}, r"^data\.path: .*none has no rows\.$"),
        (path, {"image_column": "image"}, r"^data\.image_column: .* no column 'image'; it has img, label\.$"),
        (path, {"label_column": "y"}, r"^data\.label_column: .* no column 'y'; it has img, label\.$"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read(asked, tmp_path, **settings)


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no CIFAR-10 at {CIFAR10}")
def test_the_real_cifar10_test_set(tmp_path: Path) -> None:
    images = read(CIFAR10 / "test.parquet", tmp_path)
    assert images.images.shape == (10000, 3, 32, 32) and images.classes == 10
    assert np.bincount(images.labels).tolist() == [1000] * 10
    assert np.allclose(images.images.mean((0, 2, 3)) / 255, (0.4942, 0.4851, 0.4504), atol=1e-3)


@pytest.mark.parametrize(
    ("columns", "taken"),
    [
        ({"picture": [GOOD], "digit": [3]}, 3),
        ({"id": [7], "picture": [GOOD], "label": [3], "name": ["a"]}, 3),  # of two, the one with the usual name
        ({"x": [{"bytes": GOOD, "path": None}], "fine_label": [2], "coarse_label": [1]}, 2),
    ],
)
def test_columns_are_found(columns: dict[str, Any], taken: int, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", tmp_path).labels.tolist() == [taken]


def test_columns_that_cannot_be_told_apart_are_asked_for(tmp_path: Path) -> None:
    for columns, sentence in (
        (
            {"a": [GOOD], "b": [GOOD], "y": [0]},
            r"^data\.image_column: a and b both hold bytes .* name one of a",
        ),
        ({"a": [GOOD], "one": [0], "two": [0]}, r"^data\.label_column: one and two both hold integers"),
        ({"a": ["text"], "y": [0]}, r"^data\.image_column: no column holds bytes"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=sentence):
            read(tmp_path / "a.parquet", tmp_path)


def test_a_damaged_page_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [png(p) for p in colour(50)], list(range(50)))
    content = bytearray(path.read_bytes())
    content[200:260] = b"\xff" * 60
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^data\.(path: .*a\.parquet is damaged \(.*\)|image_column: .*decoded)\.$"):
        read(path, tmp_path)
    header = write(tmp_path / "b.parquet", [png(p) for p in colour(50)], list(range(50)))
    content = bytearray(header.read_bytes())
    content[4:24] = b"\xff" * 20  # the header of the first page
    header.write_bytes(content)
    with pytest.raises(ConfigError, match=r"^data\.path: .*b\.parquet is damaged \(.*\)\.$"):
        read(header, tmp_path)


def test_an_ordinary_file_needs_its_path_and_nothing_else(tmp_path: Path) -> None:
    """Sizes are shares, images are not mirrored, columns are found."""
    path = write(tmp_path / "a.parquet", [png(p) for p in colour(60)], [i % 3 for i in range(60)])
    config = compose(["data=parquet", f"data.path={path}"]).config
    assert config.data.augment == "none"
    assert config.data.splits.sizes(60) == {"burn_in": 18, "trusted": 3, "attacker": 3, "test": 12}
    images = load_images(config.data, tmp_path / "cache")
    parts = split_images(images, config.data.splits, 0)
    assert [len(part) for part in (parts.burn_in, parts.trusted, parts.test, parts.stream)] == [18, 3, 12, 24]
