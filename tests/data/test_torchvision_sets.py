"""torchvision's sets from files in their real formats, and one sentence when they are missing, damaged or far away."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets
from scipy.io import savemat

from fedmd.config import ConfigError, DataConfig
from fedmd.data.sources.base import load_images
from fedmd.types import ImageSet

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PARTS = {"splits": {"burn_in": 1, "trusted": 1, "attacker": 1, "test": 1}, "partition": {"name": "iid"}}
RNG = np.random.default_rng(0)
LABELS = np.array([3, 1, 0, 2, 1, 3], np.uint8)  # four of the training part, two of the test part


def read(name: str, path: Path | None, cache: Path) -> ImageSet:
    return load_images(DataConfig(name=name, path=path and str(path), **PARTS), cache / "cache")


def idx(array: np.ndarray) -> bytes:
    """Yann LeCun's format: two zero bytes, 8 for uint8, the rank, the sizes (big-endian), the data."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder: Path, images: np.ndarray, packed: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, which in (("train", slice(0, 4)), ("t10k", slice(4, 6))):
        for name, array in (("images-idx3", images[which]), ("labels-idx1", LABELS[which])):
            file, content = folder / f"{part}-{name}-ubyte", idx(array)
            if packed:
                file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))
            else:
                file.write_bytes(content)
    return folder


def checksum(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
@pytest.mark.parametrize(("below", "packed"), [("", True), ("", False), ("raw", False), ("{kind}/raw", False)])
def test_idx_files_in_every_layout(name: str, kind: str, below: str, packed: bool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / below.format(kind=kind), pixels, packed)
    images = read(name, tmp_path, tmp_path)
    assert np.array_equal(images.images, pixels[:, None]) and images.images.dtype == np.uint8
    assert np.array_equal(images.labels, LABELS) and images.labels.dtype == np.int64 and images.classes == 4


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("name", "kind", "key"), [("cifar10", "CIFAR10", "labels"), ("cifar100", "CIFAR100", "fine_labels")]
)
def test_cifar_files(
    name: str, kind: str, key: str, inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = getattr(torchvision.datasets, kind)
    folder = tmp_path / reader.base_folder
    folder.mkdir()
    train, test = ([file for file, _ in part] for part in (reader.train_list, reader.test_list))
    pixels = RNG.integers(0, 256, (2 * (len(train) + 1), 3, 32, 32), dtype=np.uint8)
    labels = list(range(len(pixels)))
    for i, file in enumerate([*train, *test]):
        rows = slice(2 * i, 2 * i + 2)
        content = {"data": pixels[rows].reshape(2, 3072), key: labels[rows]}
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    meta = {**reader.meta, "md5": None}
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: ["a"]}, protocol=2))
    monkeypatch.setattr(reader, "meta", meta)
    monkeypatch.setattr(reader, "train_list", [[file, checksum(folder / file)] for file in train])
    monkeypatch.setattr(reader, "test_list", [[file, checksum(folder / file)] for file in test])

    images = read(name, folder if inside else tmp_path, tmp_path)
    assert np.array_equal(images.images, pixels) and images.labels.tolist() == labels

    (folder / test[0]).write_bytes(pickle.dumps("something that must not be unpickled"))
    with pytest.raises(ConfigError, match=rf"^data\.path: the files in .* are damaged or not {kind} \(.*\)\.$"):
        read(name, tmp_path, tmp_path)


def test_svhn_files_call_the_ten_a_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    labels = np.array([10, 1, 9, 2, 10])
    reader = torchvision.datasets.SVHN
    patched = dict(reader.split_list)
    for part, which in (("train", slice(0, 3)), ("test", slice(3, 5))):
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": pixels[which].transpose(2, 3, 1, 0), "y": labels[which, None].astype(np.uint8)})
        patched[part] = [patched[part][0], file.name, checksum(file)]
    monkeypatch.setattr(reader, "split_list", patched)
    images = read("svhn", tmp_path, tmp_path)
    assert np.array_equal(images.images, pixels) and images.labels.tolist() == [0, 1, 9, 2, 0]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="no Debian package dataset-fashion-mnist")
def test_the_real_fashion_mnist_of_debian(tmp_path: Path) -> None:
    images = read("fashion_mnist", DEBIAN, tmp_path)
    assert images.images.shape == (70000, 1, 28, 28) and np.bincount(images.labels).tolist() == [7000] * 10
    assert images.labels[:5].tolist() == [9, 0, 0, 3, 0] and images.labels[60000:60005].tolist() == [9, 2, 1, 1, 6]
    assert abs(images.images[:60000].mean() / 255 - 0.2860) < 1e-4


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "data", np.zeros((6, 28, 28), np.uint8), packed=True)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    for path, sentence in (
        (tmp_path / "nowhere", r"^data\.path: there is no folder .*nowhere\.$"),
        (folder, r"^data\.path: .*data lacks t10k-labels-idx1-ubyte of MNIST; it must hold .* or in MNIST/raw\.$"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            read("mnist", path, tmp_path)


def shorten_gz(folder: Path) -> None:
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])


def lose_a_label(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[:1])))


def write_text(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"hello, I am no idx file at all"))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (shorten_gz, r"^data\.path: .*train-images-idx3-ubyte\.gz is not a complete \.gz file\.$"),
        (lose_a_label, r"^data\.path: the files in .* are damaged or not MNIST \(2 images and 1 labels\)\.$"),
        (write_text, r"^data\.path: the files in .* are damaged or not MNIST \(.*\)\.$"),
    ],
)
def test_damaged_files_get_one_sentence(damage: Any, sentence: str, tmp_path: Path) -> None:
    folder = write_idx(tmp_path / "data", RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8), packed=True)
    damage(folder)
    with pytest.raises(ConfigError, match=sentence):
        read("mnist", folder, tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "place"),
    [
        ("mnist", "MNIST", "https://ossci-datasets.*mnist/ or http"),
        ("fashion_mnist", "FashionMNIST", "http.*fashion-mnist"),
        ("cifar10", "CIFAR10", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),
        ("cifar100", "CIFAR100", "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"),
        ("svhn", "SVHN", "http.*train_32x32.mat or http.*test_32x32.mat"),
    ],
)
def test_without_network_one_sentence_says_what_was_tried_and_what_to_set(
    name: str, kind: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    sentence = (
        rf"^data\.path: {kind} could not be downloaded from {place}.*Name or service not known\); "
        r"set data\.path to a folder that holds .*\.$"
    )
    with pytest.raises(ConfigError, match=sentence) as caught:
        read(name, None, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_download_lands_in_the_cache_and_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = RNG.integers(0, 256, (6, 28, 28), dtype=np.uint8)
    asked = []

    def download(self: torchvision.datasets.MNIST) -> None:
        asked.append(self.raw_folder)
        write_idx(Path(self.raw_folder), pixels)

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    for _ in range(2):
        assert np.array_equal(read("mnist", None, tmp_path).images, pixels[:, None])
    assert set(asked) == {str(tmp_path / "cache/torchvision/MNIST/raw")} and len(asked) == 2  # once a part
