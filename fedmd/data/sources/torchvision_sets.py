"""MNIST, FashionMNIST, CIFAR-10, CIFAR-100 and SVHN, read and downloaded by torchvision.

Training and test part are one set here: `fedmd.data.split` draws its own, seeded parts.
"""

import gzip
import os
import shutil
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from fedmd.config import ConfigError, Section
from fedmd.data.images import Samples
from fedmd.data.sources.base import DataSource, splits
from fedmd.registry import register_data
from fedmd.storage import digest, file_digest


@dataclass(frozen=True)
class FileLayout:
    """A class of torchvision.datasets, the files it reads, and where they lie below its root folder."""

    kind: str
    files: tuple[str, ...]
    below: str

    @property
    def reader(self) -> Any:
        """The class itself; importing torchvision costs a second."""
        import torchvision.datasets

        return getattr(torchvision.datasets, self.kind)

    def urls(self) -> list[str]:
        """Where torchvision looks for the files."""
        if hasattr(self.reader, "mirrors"):
            return [str(mirror) for mirror in self.reader.mirrors]
        if hasattr(self.reader, "split_list"):
            return [str(self.reader.split_list[part][0]) for part in ("train", "test")]
        return [str(self.reader.url)]


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


class TorchvisionSet(DataSource):
    """One of them: training and test part in one."""

    layout: ClassVar[FileLayout]
    defaults: ClassVar = {"splits": splits(6000, 500, 500, 5000)}

    class Params(Section):
        """Where its files are."""

        path: str | None = Field(
            None, description="null downloads it to the cache folder; or a folder with its files (plain or .gz)"
        )

    params: Params

    def identity(self) -> str:
        """A hash of the files' content; of the name alone for a download, whose checksums torchvision knows."""
        if self.params.path is None:
            return digest(self.name, "downloaded")
        return digest(self.name, version("torchvision"), *(file_digest(path) for path in self._files(self.params.path)))

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W] and labels int64 [N], training part first.

        Reads the files in data.path: torchvision's layout, or a folder that holds the files themselves, plain or
        .gz. Without data.path, downloads them (with progress) to the folder `torchvision` in `cache_dir`.

        Raises:
            ConfigError: files that are missing or damaged, or no network to get them.
        """
        layout, path = self.layout, self.params.path
        if path is None:
            return _download(layout, cache_dir / "torchvision")
        cache_dir.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=cache_dir) as root:  # no symbolic links or unpacked files in the user's folder
            folder = Path(root, layout.below)
            folder.mkdir(parents=True, exist_ok=True)
            for file, name in zip(self._files(path), layout.files, strict=True):
                _place(file, folder / name)
            return _read(layout, Path(root), f"data.path: the files in {path}")

    def _files(self, place: str) -> list[Path]:
        """The files of the set, one for each of `FileLayout.files`."""
        layout, path = self.layout, Path(place).expanduser()
        if not path.is_dir():
            raise ConfigError(f"data.path: there is no folder {path}.")
        candidates = [path, path / "raw", path / layout.below]
        complete = []
        for folder in candidates:
            pairs = [(folder / name, folder / f"{name}.gz") for name in layout.files]
            complete.append([next((file for file in pair if file.is_file()), None) for pair in pairs])
        best = max(complete, key=lambda files: sum(file is not None for file in files))
        missing = [name for name, file in zip(layout.files, best, strict=True) if file is None]
        if missing:
            raise ConfigError(
                f"data.path: {path} lacks {', '.join(missing)} of {layout.kind}; it must hold "
                f"{', '.join(layout.files)} (plain or .gz), itself or in {layout.below}."
            )
        return [file for file in best if file is not None]


@register_data("mnist")
class Mnist(TorchvisionSet):
    """MNIST: 70,000 digits, 28x28 grey, 10 classes."""

    layout = FileLayout("MNIST", _IDX, "MNIST/raw")


@register_data("fashion_mnist")
class FashionMnist(TorchvisionSet):
    """FashionMNIST: 70,000 pictures of clothes, 28x28 grey, 10 classes.

    Debian's package dataset-fashion-mnist has the files: data.path=/usr/share/datasets/fashion-mnist
    """

    layout = FileLayout("FashionMNIST", _IDX, "FashionMNIST/raw")


@register_data("cifar10")
class Cifar10(TorchvisionSet):
    """CIFAR-10: 60,000 photos, 32x32 in colour, 10 classes, in the "python version" of its authors.

    As Parquet files: data=parquet.
    """

    defaults: ClassVar = {"augment": "crop_flip", "splits": splits(20000, 500, 500, 10000)}
    layout = FileLayout(
        "CIFAR10", (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"), "cifar-10-batches-py"
    )


@register_data("cifar100")
class Cifar100(TorchvisionSet):
    """CIFAR-100: 60,000 photos, 32x32 in colour, 100 classes, in the "python version" of its authors.

    As Parquet files: data=parquet.
    """

    defaults: ClassVar = {"augment": "crop_flip", "splits": splits(20000, 1000, 500, 10000)}
    layout = FileLayout("CIFAR100", ("train", "test", "meta"), "cifar-100-python")


@register_data("svhn")
class Svhn(TorchvisionSet):
    """SVHN: 99,289 house numbers (cropped digits), 32x32 in colour, 10 classes."""

    defaults: ClassVar = {"augment": "crop", "splits": splits(20000, 500, 500, 10000)}  # a mirrored 2 is no digit
    layout = FileLayout("SVHN", ("train_32x32.mat", "test_32x32.mat"), ".")


def _place(path: Path, target: Path) -> None:
    if path.suffix != ".gz":
        os.symlink(path.absolute(), target)
        return
    try:
        with gzip.open(path, "rb") as packed, target.open("wb") as plain:
            shutil.copyfileobj(packed, plain)
    except Exception as error:  # OSError, EOFError or zlib.error
        raise ConfigError(f"data.path: {path} is not a complete .gz file.") from error


def _download(layout: FileLayout, root: Path) -> Samples:
    """Download unless a complete copy is there, then read."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        for part in _parts(layout):
            layout.reader(root, download=True, **part)
    except (OSError, RuntimeError, HTTPException) as error:  # URLError is an OSError; RuntimeError: all mirrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip("<>. ")
        raise ConfigError(
            f"data.path: {layout.kind} could not be downloaded from {' or '.join(layout.urls())} ({reason}); "
            f"set data.path to a folder that holds {', '.join(layout.files)}."
        ) from error
    return _read(layout, root, f"data.path: the files downloaded to {root}")


def _read(layout: FileLayout, root: Path, what: str) -> Samples:
    """Both parts from files in torchvision's layout; it checks CIFAR's and SVHN's checksums (before unpickling)."""
    try:
        pairs = [_samples_of(layout.reader(root, **part)) for part in _parts(layout)]
        return np.concatenate([images for images, _ in pairs]), np.concatenate([labels for _, labels in pairs])
    except Exception as error:  # torchvision's readers assert, and raise a dozen types on damaged files
        reason = (str(error).strip() or type(error).__name__).split(". ")[0].rstrip(".")
        raise ConfigError(f"{what} are damaged or not {layout.kind} ({reason}).") from error


def _parts(layout: FileLayout) -> list[dict[str, Any]]:
    return [{"split": "train"}, {"split": "test"}] if layout.kind == "SVHN" else [{"train": True}, {"train": False}]


def _samples_of(part: Any) -> Samples:
    images = np.asarray(part.data)
    if images.ndim == 3:  # MNIST: [N, H, W]
        images = images[:, None]
    elif images.shape[-1] == 3:  # CIFAR: [N, H, W, C]
        images = images.transpose(0, 3, 1, 2)
    labels = np.asarray(part.labels if hasattr(part, "labels") else part.targets, dtype=np.int64)
    if len(images) != len(labels) or len(labels) == 0:
        raise ValueError(f"{len(images)} images and {len(labels)} labels")
    return np.ascontiguousarray(images, dtype=np.uint8), labels
