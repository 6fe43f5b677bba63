"""A node's own stream, read piece by piece, against reading all of it at once."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from fedmd.config import ConfigError, NodeConfig
from fedmd.data.node_stream import read_samples

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 1, 4, 4), dtype=np.uint8)
LABELS = RNG.integers(0, 10, 23)


def png(image: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image[0]).save(encoded, "PNG")
    return encoded.getvalue()


def node(stream: str, **more: Any) -> NodeConfig:
    return NodeConfig.parse({"client": 0, "stream": stream, "position": "/nowhere", **more})


def counting(start: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
    """The stream that tests name as python:MODULE:FUNCTION."""
    yield from zip(IMAGES[start:], LABELS[start:], strict=True)


@pytest.fixture
def streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, NodeConfig]:
    """The same 23 images in all the forms there are."""
    table = pa.table({"img": [png(image) for image in IMAGES], "label": LABELS})
    pq.write_table(table, tmp_path / "one.parquet", row_group_size=5)
    (tmp_path / "many").mkdir()
    for number, first in enumerate(range(0, 23, 9)):
        pq.write_table(table.slice(first, 9), tmp_path / f"many/part-{number}.parquet", row_group_size=4)
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = tmp_path / f"images/{label}/{RNG.integers(10**9)}.png"  # names in no order
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))
        os.utime(path, ns=(number, number))
    monkeypatch.setitem(__import__("sys").modules, "tests_counting", type("Module", (), {"counting": counting}))
    classes = ",".join(map(str, range(10)))
    return {
        "file": node(f"parquet:{tmp_path}/one.parquet"),
        "files": node(f"parquet:{tmp_path}/many"),
        "folder": node(f"folder:{tmp_path}/images", classes=classes),
        "python": node("python:tests_counting:counting"),
    }


@pytest.mark.parametrize("form", ["file", "files", "folder", "python"])
@pytest.mark.parametrize("size", [1, 4, 7, 30])
def test_pieces_are_the_whole(streams: dict[str, NodeConfig], form: str, size: int) -> None:
    start = 0
    while (piece := read_samples(streams[form], start, size)) is not None:
        images, labels = piece
        assert images.dtype == np.uint8 and labels.dtype == np.int64
        assert np.array_equal(images, IMAGES[start : start + size])
        assert np.array_equal(labels, LABELS[start : start + size])
        start += len(labels)
    assert start == 23


def test_a_folder_goes_on_with_what_appears_later(streams: dict[str, NodeConfig], tmp_path: Path) -> None:
    assert read_samples(streams["folder"], 23, 5) is None
    (tmp_path / "images/3/aaa.png").write_bytes(png(IMAGES[0]))
    piece = read_samples(streams["folder"], 23, 5)
    assert piece is not None and piece[1].tolist() == [3]


@pytest.mark.parametrize(
    ("stream", "more", "sentence"),
    [
        ("parquet:/nowhere.parquet", {}, "stream: /nowhere.parquet cannot be read"),
        ("folder:/nowhere", {}, "stream: there is no folder /nowhere"),
        ("python:no.such.module:f", {}, "stream: no.such.module:f is not MODULE:FUNCTION"),
        ("python:json:no_such_function", {}, "is not MODULE:FUNCTION"),
    ],
)
def test_a_stream_that_cannot_be_read(stream: str, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_samples(node(stream, **more), 0, 1)


def test_a_folder_of_an_unknown_class(streams: dict[str, NodeConfig], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes: .* is not one of 0, 1"):
        read_samples(node(f"folder:{tmp_path}/images", classes="0,1"), 0, 1)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({}, "client"),
        ({"client": 0, "position": "p"}, "stream"),
        ({"client": 0, "stream": "ftp:x", "position": "p"}, "stream"),
        ({"client": -1, "stream": "parquet:x", "position": "p"}, "client"),
        ({"client": 0, "stream": "parquet:x", "position": "p", "max-samples": 0}, "max-samples"),
        ({"client": 0, "stream": "parquet:x", "position": "p", "image-size": "28"}, "image-size"),
        ({"client": 0, "stream": "parquet:x", "position": "p", "label": "y"}, "label"),
    ],
)
def test_wrong_node_settings_name_their_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"^node-config {key}"):
        NodeConfig.parse(settings)


def test_sizes_are_height_by_width(tmp_path: Path, streams: dict[str, NodeConfig]) -> None:
    piece = read_samples(node(f"parquet:{tmp_path}/one.parquet", **{"image-size": "8x6"}), 0, 2)
    assert piece is not None and piece[0].shape == (2, 1, 8, 6)
