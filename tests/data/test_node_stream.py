"""A node's own stream, read piece by piece, against reading all of it at once; each sample is sent once."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fedmd.config import ConfigError, NodeConfig
from fedmd.data.images import Samples
from fedmd.data.node_stream import next_samples, read_samples

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


def test_columns_are_named_by_the_nodes_own_keys(tmp_path: Path) -> None:
    for columns, key in (
        ({"a": [png(IMAGES[0])], "b": [png(IMAGES[0])], "label": [0]}, "image-column"),
        ({"a": [b"no image"], "label": [0]}, "image-column"),
        ({"a": [png(IMAGES[0])], "one": [0], "two": [0]}, "label-column"),
        ({"a": [png(IMAGES[0])], "label": [-1]}, "label-column"),
    ):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet")
        with pytest.raises(ConfigError, match=f"^{key}: "):
            read_samples(node(f"parquet:{tmp_path}/a.parquet"), 0, 1)


def test_an_owners_function_that_fails_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(start: int) -> Iterator[tuple[NDArray[np.uint8], int]]:
        raise ValueError("the camera is off")

    monkeypatch.setitem(__import__("sys").modules, "tests_failing", type("Module", (), {"failing": failing}))
    own = node("python:tests_failing:failing")
    sentence = r"^stream: tests_failing:failing failed at sample 0 \(ValueError: the camera is off\)\.$"
    with pytest.raises(ConfigError, match=sentence):
        next_samples(tmp_path / "position", "run", 0, 3, lambda start, count: read_samples(own, start, count))


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


LENGTH = 40


def read(start: int, count: int) -> Samples | None:
    """A stream of 40 samples whose labels are their numbers."""
    labels = np.arange(start, min(start + count, LENGTH))
    return (np.zeros((len(labels), 1, 1, 1), np.uint8), labels) if len(labels) else None


def numbers(samples: Samples | None) -> list[int]:
    return [] if samples is None else samples[1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(1, 9)), max_size=12))
def test_against_a_list_that_is_used_up(questions: list[tuple[str, int, int]]) -> None:
    left, run_now = list(range(LENGTH)), ""
    answered: dict[int, list[int]] = {}
    with TemporaryDirectory() as folder:
        for run, round, count in questions:
            if run != run_now:  # another run: nothing of the old one is repeated
                run_now, answered = run, {}
            if round not in answered:
                answered[round], left = left[:count], left[count:]
            assert numbers(next_samples(Path(folder, "p.json"), run, round, count, read)) == answered[round]


def test_what_could_not_be_read_was_not_sent(tmp_path: Path) -> None:
    def broken(start: int, count: int) -> Samples | None:
        raise ConfigError("stream: the disk is gone")

    file = tmp_path / "p.json"
    assert numbers(next_samples(file, "r", 0, 3, read)) == [0, 1, 2]
    with pytest.raises(ConfigError, match="the disk is gone"):
        next_samples(file, "r", 1, 3, broken)
    assert numbers(next_samples(file, "r", 1, 3, read)) == [3, 4, 5]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "r"}', '{"run": "r", "next": "x", "sent": {}}'])
def test_a_damaged_file_stops_the_node_instead_of_sending_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match=r"position: .* cannot be read and written"):
        next_samples(tmp_path / "p.json", "r", 0, 1, read)


def test_memory_of_old_rounds_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    for round in range(200):
        next_samples(file, "r", round, 1, lambda start, count: (np.zeros((1, 1, 1, 1), np.uint8), np.array([start])))
    assert file.stat().st_size < 3000


def test_a_round_that_is_not_remembered_is_neither_repeated_nor_replaced_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    for round in range(5):
        assert numbers(next_samples(file, "r", round, 2, read, remembered=3)) == [2 * round, 2 * round + 1]
    assert numbers(next_samples(file, "r", 2, 2, read, remembered=3)) == [4, 5]
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="round 1 is not remembered"):
        next_samples(file, "r", 1, 2, read, remembered=3)
    assert file.read_bytes() == before
