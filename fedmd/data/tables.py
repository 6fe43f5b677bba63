"""Tables with a column of encoded images (bytes, or the Hugging Face struct with `bytes`) and one of integer labels."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError
from fedmd.data.images import Samples, decode_image, described, encode_png
from fedmd.types import ImageSet


class Reading(Protocol):
    """The settings that say what to read: those of a run's data, or those of a node's own stream."""

    @property
    def image_column(self) -> str | None:
        """The column with the images; None: the only one there can be."""

    @property
    def label_column(self) -> str | None:
        """The column with the labels; None: the only one there can be, or the one called so."""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width to resize to; None: as they are."""


@dataclass(frozen=True)
class Columns:
    """The two columns that are read, by name."""

    image: str
    label: str

    def __iter__(self) -> Iterator[str]:
        return iter((self.image, self.label))


@dataclass(frozen=True)
class Rows:
    """Some rows of a table (`table` is a pyarrow RecordBatch or Table): those from `first` on of `place`."""

    table: Any
    place: str
    first: int
    columns: Columns


KEYS = Columns("data.image_column", "data.label_column")  # the settings of a run that name the columns


def find_columns(schema: Any, place: str, config: Reading, keys: Columns = KEYS) -> Columns:
    """The columns of a pyarrow `schema` that the settings name, or the only ones that hold images and labels.

    Among several columns of integers, one with a usual name is taken. Raises ConfigError, which begins with one of the
    `keys`, for a column that is not there or of the wrong kind, and where there is none, or no telling which.
    """
    return Columns(
        _find(schema, place, keys.image, config.image_column, _holds_images, "bytes or a struct with `bytes`", ()),
        _find(schema, place, keys.label, config.label_column, _holds_integers, "integers", USUAL_LABELS),
    )


USUAL_LABELS = ("label", "labels", "y", "target", "class", "fine_label")  # in this order, where several could be


def _find(
    schema: Any,
    place: str,
    key: str,
    named: str | None,
    holds: Callable[[Any], bool],
    what: str,
    usual: tuple[str, ...],
) -> str:
    if named is not None:
        if named not in schema.names:
            raise ConfigError(f"{key}: {place} has no column {named!r}; it has {', '.join(schema.names)}.")
        if not holds(schema.field(named).type):
            raise ConfigError(f"{key}: {named!r} of {place} must hold {what}, not {schema.field(named).type}.")
        return named
    found = [field.name for field in schema if holds(field.type)]
    found = [name for name in usual if name in found][:1] or found
    if len(found) != 1:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        many = "no column holds" if not found else f"{' and '.join(found)} both hold"
        raise ConfigError(f"{key}: {many} {what} in {place}; name one of {kinds}.")
    return found[0]


def _holds_images(kind: Any) -> bool:
    import pyarrow as pa

    is_struct = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return bool(is_struct or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_integers(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind))


def decode_rows(
    batches: Iterable[Rows], size: tuple[int, int] | None, *, key: str, named: str, keys: Columns = KEYS
) -> Samples:
    """Images uint8 [N, C, H, W] and labels int64 [N] of some rows, their columns those of `find_columns`.

    `size` (height, width) is what images are resized to, None leaves them as they are; `key` (data.path, ...) = `named`
    is where they come from. Raises ConfigError: no rows, a label that is negative or missing, an image that cannot be
    decoded or differs in size or kind from the first one.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    for rows in batches:
        labels.append(_checked_labels(rows, keys.label))
        for offset, cell in enumerate(rows.table.column(rows.columns.image).to_pylist()):
            place = f"row {rows.first + offset} of {rows.place}"
            image = decode_image(_encoded(cell), size, key=keys.image, place=place)
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


def _checked_labels(rows: Rows, key: str) -> NDArray[np.int64]:
    claimed = rows.table.column(rows.columns.label).to_pylist()
    labels = np.array([-1 if label is None else label for label in claimed], dtype=np.int64)
    if (labels < 0).any():
        row = int(np.argmax(labels < 0))
        raise ConfigError(
            f"{key}: labels must be integers >= 0, but that of row {rows.first + row} of {rows.place} is "
            f"{'missing' if claimed[row] is None else claimed[row]}."
        )
    return labels
