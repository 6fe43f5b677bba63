"""A data set of the Hugging Face Hub, for those who have network; its files stay in Hugging Face's own cache."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from fedmd.config import ConfigError, Count, Section
from fedmd.data.images import Samples
from fedmd.data.sources.base import DataSource
from fedmd.data.tables import Rows, decode_rows, find_columns
from fedmd.registry import register_data
from fedmd.storage import digest


@register_data("huggingface")
class HuggingFace(DataSource):
    """A data set of the Hugging Face Hub with an image and an integer label a row; needs network."""

    class Params(Section):
        """Which data set, and which of its columns."""

        dataset: str | None = Field(None, description="its name on the Hub, for example uoft-cs/cifar10")
        image_column: str | None = Field(None, description="null: the only column of images")
        label_column: str | None = Field(None, description="null: the only column of integers, or `label`")
        image_size: tuple[Count, Count] | None = Field(
            None, description="[height, width] to resize to; null: all images must have one size"
        )

        @model_validator(mode="after")
        def _needs_a_name(self) -> Self:
            if not self.dataset:
                raise ValueError("dataset must name a data set on the Hugging Face Hub for data=huggingface")
            return self

    params: Params

    def identity(self) -> str:
        """A hash of the name, the columns, the size and the decoder's version.

        Not of the content: asking the Hub costs seconds. A data set that changes under its name is read again once
        the cache is empty.
        """
        of = self.params
        columns = (str(of.image_column), str(of.label_column))
        return digest(str(of.dataset), *columns, str(of.image_size), version("pillow"))

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W] and labels int64 [N] of the splits train and test, or of all where there are none.

        Raises:
            ConfigError: no network, no such data set, or columns that are no images and integer labels.
        """
        from datasets import load_dataset

        name = str(self.params.dataset)
        try:
            loaded: Any = load_dataset(name)
        except Exception as error:  # of datasets, huggingface_hub, its HTTP library or the script of the data set
            raise ConfigError(
                f"data.dataset: {name!r} could not be had from the Hugging Face Hub ({_reason(error)}); with "
                "its Parquet files on disk, use data=parquet data.path=FOLDER."
            ) from error
        splits = [split for split in ("train", "test") if split in loaded] or list(loaded)
        rows = (batch for split in splits for batch in self._rows(loaded[split], f"{name} ({split})"))
        return decode_rows(rows, self.params.image_size, key="data.dataset", named=name)

    def _rows(self, split: Any, place: str) -> Iterator[Rows]:
        from datasets import Image

        for name, feature in split.features.items():
            if isinstance(feature, Image):
                split = split.cast_column(name, Image(decode=False))
        columns = find_columns(split.features.arrow_schema, place, self.params)
        first = 0
        for table in split.with_format("arrow").iter(batch_size=1000):
            yield Rows(table, place, first, columns)
            first += table.num_rows


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
