"""A deployed client's own samples: Parquet files, a folder of images, or a Python iterator, read from a position on.

How far the stream has been sent is on disk: a sample is sent once, whatever is restarted in between. Nothing here
depends on a run's configuration (what is read is the node owner's choice alone), and nothing imports PyTorch.
"""

import fcntl
import importlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, NodeConfig
from fedmd.data.images import Samples, decode_image
from fedmd.data.tables import Columns, Rows, decode_rows, find_columns
from fedmd.storage import read_json, write_json
from fedmd.types import Json

REMEMBERED = 64  # rounds whose samples are known by number, so that a question asked again gets the same answer
_KEYS = Columns("image-column", "label-column")
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def next_samples(
    file: Path,
    run: str,
    round: int,
    count: int,
    read: Callable[[int, int], Samples | None],
    *,
    remembered: int = REMEMBERED,
) -> Samples | None:
    """The next `count` samples of a stream, noted in `file` as sent before they are; None where none are left.

    `read(start, count)` reads them. Asked again for a round of the same run, as by a server that resumed, the answer
    is the same samples; a new run goes on where the last one stopped. If a message is lost on its way, its samples
    are lost with it: sent at most once, unless the server asks again; it can for the latest `remembered` rounds.

    Raises ConfigError when the file cannot be read or written, when the round is older than what is remembered, and
    what `read` raises.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_name(f"{file.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two runs may ask one node at once
            state: Json = read_json(file) if file.exists() else {"run": run, "next": 0, "sent": {}}
            sent: dict[str, list[int]] = state["sent"] if state["run"] == run else {}
            if str(round) in sent:
                start, stop = sent[str(round)]
                return read(start, stop - start)
            if len(sent) >= remembered and round < min(map(int, sent)):
                raise ConfigError(f"position: what was sent in round {round} is not remembered any more.")
            start = int(state["next"])
            samples = read(start, count)
            stop = start + (0 if samples is None else len(samples[1]))
            sent[str(round)] = [start, stop]
            kept = dict(list(sent.items())[-remembered:])
            write_json(file, {"run": run, "next": stop, "sent": kept})
            return samples
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"position: {file} cannot be read and written ({error}).") from error


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
    return decode_rows(rows, config.image_size, key="stream", named=place, keys=_KEYS) if rows else None


def _rows(config: NodeConfig, files: list[Path], start: int, count: int) -> Iterator[Rows]:
    """Only the row groups that hold the wanted rows are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    begins = 0  # number of the file's first row in the whole stream
    for file in files:
        try:
            with pq.ParquetFile(file) as table:
                columns = find_columns(table.schema_arrow, str(file), config, _KEYS)
                for group in range(table.num_row_groups):
                    size = table.metadata.row_group(group).num_rows
                    first, last = max(start - begins, 0), min(start + count - begins, size)
                    if first < last:
                        wanted = table.read_row_group(group, columns=list(columns)).slice(first, last - first)
                        yield Rows(wanted, str(file), begins + first, columns)
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
    try:
        pairs = list(itertools.islice(function(start), count))
    except Exception as error:  # whatever somebody's function may do
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"stream: {place} failed at sample {start} ({told}).") from error
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
