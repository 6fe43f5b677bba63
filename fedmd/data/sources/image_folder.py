"""Images in a folder per class, as torchvision's `ImageFolder` finds them."""

from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator

from fedmd.config import ConfigError, Count, Section
from fedmd.data.images import Samples, decode_image, described
from fedmd.data.sources.base import DataSource
from fedmd.registry import register_data
from fedmd.storage import digest

PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@register_data("image_folder")
class ImageFolder(DataSource):
    """Any images in a folder per class (PNG, JPEG, ...)."""

    class Params(Section):
        """Which folders."""

        path: str | None = Field(
            None, description="path/CLASS/*.png; a comma-separated list joins folders, 'data.path=\"a/train,a/test\"'"
        )
        image_size: tuple[Count, Count] | None = Field(
            None, description="[height, width] to resize to; null: all images must have one size"
        )

        @model_validator(mode="after")
        def _needs_a_place(self) -> Self:
            if not self.path:
                raise ValueError("path must name a folder that has a folder for every class for data=image_folder")
            return self

    params: Params

    def identity(self) -> str:
        """A hash of the files' paths, sizes and times of change, the image size and the decoder's version."""
        stats = []
        for path, label in self._samples():
            stat = path.stat()
            stats.append(f"{path} {label} {stat.st_size} {stat.st_mtime_ns}")
        return digest(str(self.params.image_size), version("pillow"), *stats)

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W] and labels int64 [N], classes numbered in the order of their folders' names.

        All images are grey (C = 1) if all files are; one in colour makes all of them colour (C = 3).

        Raises:
            ConfigError: no such folder, a folder without images, an image that cannot be decoded, or images of
                several sizes while data.image_size is null.
        """
        samples, size = self._samples(), self.params.image_size
        images = [decode_image(path, size, key="data.path", place=str(path)) for path, _ in samples]
        for (path, _), image in zip(samples, images, strict=True):
            if image.shape[1:] != images[0].shape[1:]:
                raise ConfigError(
                    f"data.image_size: must be set, for example [32,32], as images differ in size: {path} is "
                    f"{described(image)} and {samples[0][0]} {described(images[0])}."
                )
        channels = max(len(image) for image in images)
        stacked = np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])
        return stacked, np.array([label for _, label in samples], dtype=np.int64)

    def _samples(self) -> list[tuple[Path, int]]:
        """Every image and its class; a comma-separated data.path joins folders that hold the same classes."""
        folders = [_folder(Path(part.strip()).expanduser()) for part in (self.params.path or "").split(",")]
        for folder in folders:
            if folder.classes != folders[0].classes:
                raise ConfigError(
                    f"data.path: {folder.root} has the classes {', '.join(folder.classes)}, but {folders[0].root} "
                    f"has {', '.join(folders[0].classes)}."
                )
        return [(Path(path), label) for folder in folders for path, label in folder.samples]


def _folder(root: Path) -> Any:
    from torchvision import datasets

    if not root.is_dir():
        raise ConfigError(f"data.path: there is no folder {root}.")
    try:
        folder = datasets.ImageFolder(root)
    except FileNotFoundError as error:  # no folders, or folders without images
        reason = str(error).split(". ")[0].rstrip(".")
        raise ConfigError(f"data.path: {root} must hold a folder of images for every class ({reason}).") from error
    if set(folder.classes) <= PARTS:
        parts = ",".join(str(root / name) for name in folder.classes)
        raise ConfigError(
            f"data.path: {root} has the folders {', '.join(folder.classes)} instead of one for every class; "
            f"name them, as in 'data.path=\"{parts}\"'."
        )
    return folder
