"""A data set of the Hugging Face Hub, for those who have network; its files stay in Hugging Face's own cache."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, DataConfig
from fedmd.data.tables import Rows, check_columns, decode_rows
from fedmd.storage import digest


def identity(config: DataConfig) -> str:
    """A hash of the name, the columns, the size and the decoder's version.

    Not of the content: asking the Hub costs seconds. A data set that changes under its name is read again once
    the cache is empty.
    """
    return digest(
        str(config.dataset), config.image_column, config.label_column, str(config.image_size), version("pillow")
    )


def decode(config: DataConfig, cache_dir: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N, C, H, W] and labels int64 [N] of the splits train and test, or of all where there are none.

    Raises:
        ConfigError: no network, no such data set, or columns that are no images and integer labels.
    """
    from datasets import load_dataset

    try:
        loaded: Any = load_dataset(str(config.dataset))
    except Exception as error:  # of datasets, huggingface_hub, its HTTP library or the script of the data set
        raise ConfigError(
            f"data.dataset: {config.dataset!r} could not be had from the Hugging Face Hub ({_reason(error)}); with "
            "its Parquet files on disk, use data=parquet data.path=FOLDER."
        ) from error
    splits = [name for name in ("train", "test") if name in loaded] or list(loaded)
    rows = (batch for split in splits for batch in _rows(loaded[split], f"{config.dataset} ({split})", config))
    return decode_rows(rows, config, key="data.dataset", named=str(config.dataset))


def _rows(split: Any, place: str, config: DataConfig) -> Iterator[Rows]:
    from datasets import Image

    if isinstance(split.features.get(config.image_column), Image):
        split = split.cast_column(config.image_column, Image(decode=False))
    check_columns(split.features.arrow_schema, place, config)
    first = 0
    for table in split.with_format("arrow").iter(batch_size=1000):
        yield Rows(table, place, first)
        first += table.num_rows


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
