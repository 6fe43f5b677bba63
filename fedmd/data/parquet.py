"""Parquet files with encoded images (bytes, or the Hugging Face struct with `bytes`) and an integer label."""

import hashlib
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, DataConfig
from fedmd.data.cache import digest

GREY_MODES = ("1", "L", "LA")
COLOUR_MODES = ("RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr")


def identity(config: DataConfig) -> str:
    """A hash of the files' content (0.1 s for CIFAR-10's 46 MB), the columns and the decoder's version."""
    contents = []
    for path in _files(config):
        with path.open("rb") as file:
            contents.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digest(config.image_column, config.label_column, version("pillow"), *contents)


def decode(config: DataConfig) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, C, H, W] (C = 1 for grey, 3 for colour; transparency is dropped) and labels int64 [N].

    Raises:
        ConfigError: no file, no such column, no rows, a label that is negative, missing or no integer, an
            image that cannot be decoded or differs in size or kind from the first one.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for path in _files(config):
        row = 0
        for encoded, claimed in _batches(path, config):
            labels.append(_checked_labels(claimed, path, row))
            for offset, data in enumerate(encoded):
                image = _pixels(data, f"row {row + offset} of {path}")
                if images and image.shape != images[0].shape:
                    raise ConfigError(
                        f"data.path: all images must have one size and kind, but row {row + offset} of "
                        f"{path} is {_described(image)} and the first image {_described(images[0])}."
                    )
                images.append(image)
            row += len(encoded)
    if not images:
        raise ConfigError(f"data.path: {config.path} has no rows.")
    return np.stack(images), np.concatenate(labels)


def _files(config: DataConfig) -> list[Path]:
    """The files that data.path names, in its order; a folder stands for its .parquet files, sorted."""
    files: list[Path] = []
    for part in (config.path or "").split(","):
        path = Path(part.strip()).expanduser()
        found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
        if not found:
            raise ConfigError(f"data.path: the folder {path} has no .parquet files.")
        if not found[0].is_file():
            raise ConfigError(f"data.path: there is no file {path}.")
        files.extend(found)
    return files


def _batches(path: Path, config: DataConfig) -> Any:
    """Pairs (encoded images as bytes or None, labels as a pyarrow array), a thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"data.path: {path} is not a Parquet file.") from error
    schema = table.schema_arrow
    for key, column in (("image_column", config.image_column), ("label_column", config.label_column)):
        if column not in schema.names:
            raise ConfigError(f"data.{key}: {path} has no column {column!r}; it has {', '.join(schema.names)}.")
    kind = schema.field(config.image_column).type
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ConfigError(
            f"data.image_column: {config.image_column!r} of {path} must hold bytes or a struct with `bytes`, "
            f"not {kind}."
        )
    if not pa.types.is_integer(schema.field(config.label_column).type):
        raise ConfigError(
            f"data.label_column: {config.label_column!r} of {path} must hold integers, "
            f"not {schema.field(config.label_column).type}."
        )
    for batch in table.iter_batches(1000, columns=[config.image_column, config.label_column]):
        cells = batch.column(config.image_column).to_pylist()
        encoded = [cell["bytes"] if is_struct and cell else cell for cell in cells]
        yield encoded, batch.column(config.label_column)


def _checked_labels(column: Any, path: Path, first_row: int) -> NDArray[np.int64]:
    labels = np.array([-1 if label is None else label for label in column.to_pylist()], dtype=np.int64)
    if (labels < 0).any():
        row = int(np.argmax(labels < 0))
        found = "missing" if column[row].as_py() is None else labels[row]
        raise ConfigError(
            f"data.label_column: labels must be integers >= 0, but that of row {first_row + row} of {path} is {found}."
        )
    return labels


def _pixels(encoded: bytes | None, place: str) -> NDArray[np.uint8]:
    """One image as uint8 [C, H, W]."""
    from PIL import Image

    if not encoded:
        raise ConfigError(f"data.image_column: {place} has no image bytes.")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            if image.mode not in GREY_MODES + COLOUR_MODES:
                raise ConfigError(f"data.image_column: {place} has unsupported pixels (mode {image.mode}).")
            pixels = np.asarray(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    except ConfigError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types on damaged bytes
        raise ConfigError(f"data.image_column: the image in {place} cannot be decoded.") from error
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _described(image: NDArray[np.uint8]) -> str:
    channels, height, width = image.shape
    return f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
