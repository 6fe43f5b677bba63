"""Parquet files with encoded images (bytes, or the Hugging Face struct with `bytes`) and an integer label."""

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
from fedmd.storage import digest, file_digest


@register_data("parquet")
class Parquet(DataSource):
    """Any Parquet file(s) with encoded images (PNG, JPEG, ...) and an integer label."""

    class Params(Section):
        """Which files, and which of their columns."""

        path: str | None = Field(None, description="a file, a folder of .parquet files, or a comma-separated list")
        image_column: str | None = Field(
            None,
            description="bytes, or a struct with `bytes` (Hugging Face's layout); null: the only such column",
        )
        label_column: str | None = Field(None, description="null: the only column of integers, or `label`")
        image_size: tuple[Count, Count] | None = Field(
            None, description="[height, width] to resize to; null: all images must have one size"
        )

        @model_validator(mode="after")
        def _needs_a_place(self) -> Self:
            if not self.path:
                raise ValueError("path must name one or more Parquet files for data=parquet")
            return self

    params: Params

    def identity(self) -> str:
        """A hash of the files' content, the columns, the size and the decoder's version."""
        columns, size = self.params, [str(self.params.image_size)] if self.params.image_size else []
        contents = [file_digest(path) for path in self._files()]
        named = (str(columns.image_column), str(columns.label_column))
        return digest(*named, version("pillow"), *size, *contents)

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W] (C = 1 for grey, 3 for colour; transparency is dropped) and labels int64 [N].

        Raises:
            ConfigError: no file, a damaged one, no such column, no rows, a label that is negative, missing or no
                integer, an image that cannot be decoded or differs in size or kind from the first one.
        """
        return decode_rows(self._rows(), self.params.image_size, key="data.path", named=str(self.params.path))

    def _files(self) -> list[Path]:
        """The files that data.path names, in its order; a folder stands for its .parquet files, sorted."""
        files: list[Path] = []
        for part in (self.params.path or "").split(","):
            path = Path(part.strip()).expanduser()
            found = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
            if not found:
                raise ConfigError(f"data.path: the folder {path} has no .parquet files.")
            if not found[0].is_file():
                raise ConfigError(f"data.path: there is no file {path}.")
            files.extend(found)
        return files

    def _rows(self) -> Iterator[Rows]:
        """A thousand rows at a time."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        for path in self._files():
            try:
                table = pq.ParquetFile(path)
            except pa.ArrowInvalid as error:
                raise ConfigError(f"data.path: {path} is not a Parquet file.") from error
            columns, first = find_columns(table.schema_arrow, str(path), self.params), 0
            batches = table.iter_batches(1000, columns=list(columns))
            while (batch := _next(batches, path)) is not None:
                yield Rows(batch, str(path), first, columns)
                first += batch.num_rows


def _next(batches: Iterator[Any], path: Path) -> Any:
    """The next batch of rows, None after the last one. Raises ConfigError where the file is damaged."""
    import pyarrow as pa

    try:
        return next(batches, None)
    except (OSError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the file's
            raise
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"data.path: {path} is damaged ({reason}).") from error
