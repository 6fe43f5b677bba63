"""A deployed client's own samples: Parquet files, a folder of images, or a Python iterator, read from a position on.

Nothing here depends on a run's configuration: what is read is the node owner's choice alone.
"""

import importlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, NodeConfig
from fedmd.data.images import decode_image
from fedmd.data.tables import Rows, check_columns, decode_rows

Samples = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [n, C, H, W], labels [n]
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def read_samples(config: NodeConfig, start: int, count: int) -> Samples | None:
    """Samples `start` to `start + count` of the node's stream, fewer where it ends, None where nothing is left.

    Raises ConfigError when the stream cannot be read; the sentence begins with the node's key.
    """
    kind, _, place = config.stream.partition(":")
    return _READERS[kind](config, place, start, count)


def _parquet(config: NodeConfig, place: str, start: int, count: int) -> Samples | None:
    """Files of a folder in the order of their names: name new ones so that they come last."""
    path = Path(place).expanduser()
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    rows = list(_rows(config, files, start, count))
    return decode_rows(rows, config, key="stream", named=place) if rows else None


def _rows(config: NodeConfig, files: list[Path], start: int, count: int) -> Iterator[Rows]:
    """Only the row groups that hold the wanted rows are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    begins = 0  # number of the file's first row in the whole stream
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                check_columns(table.schema_arrow, str(file), config)
                for group in range(table.num_row_groups):
                    size = table.metadata.row_group(group).num_rows
                    first, last = max(start - begins, 0), min(start + count - begins, size)
                    if first < last:
                        columns = [config.image_column, config.label_column]
                        wanted = table.read_row_group(group, columns=columns).slice(first, last - first)
                        yield Rows(wanted, str(file), begins + first)
                    begins += size
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"stream: {file} cannot be read as a Parquet file.") from error
        if begins >= start + count:
            return


def _folder(config: NodeConfig, place: str, start: int, count: int) -> Samples | None:
    """A folder per class; files in the order in which they appeared, so that new ones come last."""
    root = Path(place).expanduser()
    if not root.is_dir():
        raise ConfigError(f"stream: there is no folder {root}.")
    names = config.classes or tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
    label_of = {name: label for label, name in enumerate(names)}
    found = [path for path in root.glob("*/*") if path.suffix.lower() in _SUFFIXES]
    if strange := sorted({path.parent.name for path in found} - set(label_of)):
        raise ConfigError(f"classes: {root} has the folder {strange[0]}, which is not one of {', '.join(names)}.")
    wanted = sorted(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))[start : start + count]
    images = [decode_image(path, config.image_size, key="stream", place=str(path)) for path in wanted]
    return _stacked(images, [label_of[path.parent.name] for path in wanted], place)


def _python(config: NodeConfig, place: str, start: int, count: int) -> Samples | None:
    module, _, name = place.rpartition(":")
    try:
        function: Callable[[int], Iterator[tuple[NDArray[np.uint8], int]]] = getattr(
            importlib.import_module(module), name
        )
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"stream: {place} is not MODULE:FUNCTION that can be imported ({error}).") from error
    pairs = list(itertools.islice(function(start), count))
    return _stacked([np.asarray(image) for image, _ in pairs], [label for _, label in pairs], place)


def _stacked(images: list[NDArray[np.uint8]], labels: list[int], place: str) -> Samples | None:
    if not images:
        return None
    shapes = {(image.dtype, image.shape) for image in images}
    if len(shapes) > 1 or images[0].dtype != np.uint8 or images[0].ndim != 3:
        raise ConfigError(f"stream: images of {place} must be uint8 [C, H, W] of one size; set image-size.")
    return np.stack(images), np.array(labels, dtype=np.int64)


_READERS: dict[str, Callable[[NodeConfig, str, int, int], Samples | None]] = {
    "parquet": _parquet,
    "folder": _folder,
    "python": _python,
}
