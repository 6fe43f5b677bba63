"""Parquet files with encoded images (bytes, or the Hugging Face struct with `bytes`) and an integer label."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, DataConfig
from fedmd.data.tables import Rows, check_columns, decode_rows
from fedmd.storage import digest, file_digest


def identity(config: DataConfig) -> str:
    """A hash of the files' content (0.1 s for CIFAR-10's 46 MB), the columns, the size and the decoder's version."""
    contents = [file_digest(path) for path in _files(config)]
    size = [str(config.image_size)] if config.image_size else []
    return digest(config.image_column, config.label_column, version("pillow"), *size, *contents)


def decode(config: DataConfig, cache_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, C, H, W] (C = 1 for grey, 3 for colour; transparency is dropped) and labels int64 [N].

    Raises:
        ConfigError: no file, no such column, no rows, a label that is negative, missing or no integer, an
            image that cannot be decoded or differs in size or kind from the first one.
    """
    return decode_rows(_rows(config), config, key="data.path", named=str(config.path))


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


def _rows(config: DataConfig) -> Iterator[Rows]:
    """A thousand rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in _files(config):
        try:
            table = pq.ParquetFile(path)
        except pa.ArrowInvalid as error:
            raise ConfigError(f"data.path: {path} is not a Parquet file.") from error
        check_columns(table.schema_arrow, str(path), config)
        first = 0
        for batch in table.iter_batches(1000, columns=[config.image_column, config.label_column]):
            yield Rows(batch, str(path), first)
            first += batch.num_rows
