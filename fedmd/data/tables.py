"""Tables with a column of encoded images (bytes, or the Hugging Face struct with `bytes`) and one of integer labels."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError
from fedmd.data.images import Samples, decode_image, described, encode_png
from fedmd.types import ImageSet


class Columns(Protocol):
    """The settings that say what to read: those of a run's data, or those of a node's own stream."""

    @property
    def image_column(self) -> str:
        """The column with the images."""

    @property
    def label_column(self) -> str:
        """The column with the labels."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width to resize to; None: as they are."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a table (`table` is a pyarrow RecordBatch or Table): those from `first` on of `place`."""

    table: Any
    place: str
    first: int


def check_columns(schema: Any, place: str, config: Columns) -> None:
    """Refuse a pyarrow `schema` whose columns are missing or of the wrong kind."""
    import pyarrow as pa

    for key, column in (("image_column", config.image_column), ("label_column", config.label_column)):
        if column not in schema.names:
            raise ConfigError(f"data.{key}: {place} has no column {column!r}; it has {', '.join(schema.names)}.")
    kind = schema.field(config.image_column).type
    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if not (is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise ConfigError(
            f"data.image_column: {config.image_column!r} of {place} must hold bytes or a struct with `bytes`, "
            f"not {kind}."
        )
    if not pa.types.is_integer(schema.field(config.label_column).type):
        raise ConfigError(
            f"data.label_column: {config.label_column!r} of {place} must hold integers, "
            f"not {schema.field(config.label_column).type}."
        )


def decode_rows(batches: Iterable[Rows], config: Columns, *, key: str, named: str) -> Samples:
    """Images uint8 [N, C, H, W] and labels int64 [N] of tables that passed `check_columns`.

    `key` (data.path, ...) = `named` is where they come from. Raises ConfigError: no rows, a label that is
    negative or missing, an image that cannot be decoded or differs in size or kind from the first one.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for rows in batches:
        labels.append(_checked_labels(rows, config))
        for offset, cell in enumerate(rows.table.column(config.image_column).to_pylist()):
            place = f"row {rows.first + offset} of {rows.place}"
            image = decode_image(_encoded(cell), config.image_size, key="data.image_column", place=place)
            if images and image.shape != images[0].shape:
                raise ConfigError(
                    f"{key}: all images must have one size and kind, but {place} is {described(image)} "
                    f"and the first image {described(images[0])}."
                )
            images.append(image)
    if not images:
        raise ConfigError(f"{key}: {named} has no rows.")
    return np.stack(images), np.concatenate(labels)


def write_parquet(samples: ImageSet, path: Path) -> None:
    """Write `samples` in order, in the columns img and label: with a client's, a deployed node can do what it would."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"img": [encode_png(image) for image in samples.images], "label": samples.labels})
    pq.write_table(table, path)


def _encoded(cell: Any) -> bytes | Path | None:
    if isinstance(cell, dict):  # Hugging Face: bytes, or a path to them
        return cell["bytes"] or (Path(cell["path"]) if cell.get("path") else None)
    encoded: bytes | None = cell
    return encoded


def _checked_labels(rows: Rows, config: Columns) -> NDArray[np.int64]:
    claimed = rows.table.column(config.label_column).to_pylist()
    labels = np.array([-1 if label is None else label for label in claimed], dtype=np.int64)
    if (labels < 0).any():
        row = int(np.argmax(labels < 0))
        raise ConfigError(
            f"data.label_column: labels must be integers >= 0, but that of row {rows.first + row} of {rows.place} is "
            f"{'missing' if claimed[row] is None else claimed[row]}."
        )
    return labels
