"""Arrays in an NPZ file, and tables in CSV files: pictures, features, embedded texts."""

from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedmd.config import ConfigError, Section
from fedmd.data.features import as_labels, as_pixels
from fedmd.data.images import Samples
from fedmd.data.sources.base import DataSource
from fedmd.data.tables import USUAL_LABELS
from fedmd.registry import register_data
from fedmd.storage import digest, file_digest


@register_data("npz")
class Npz(DataSource):
    """NumPy arrays in one .npz file: uint8 pictures [N, H, W] or [N, C, H, W], or features [N, d] of any numbers."""

    class Params(Section):
        """Which file, and which of its arrays."""

        path: str | None = Field(None, description="the .npz file, as np.savez(path, x=..., y=...) writes it")
        x: str = Field("x", description="the array of pictures or features")
        y: str = Field("y", description="the array of labels: integers, or texts")

        @model_validator(mode="after")
        def _needs_a_place(self) -> Self:
            if not self.path:
                raise ValueError("path must name an .npz file for data=npz")
            return self

    params: Params

    def identity(self) -> str:
        """A hash of the file's content and the arrays' names."""
        return digest(self.params.x, self.params.y, file_digest(_file(self.params.path)))

    def decode(self, cache_dir: Path) -> Samples:
        """Images uint8 [N, C, H, W], features as [N, 1, 1, d], and labels int64 [N].

        Raises ConfigError where the file is none, or has no such arrays or none that fit.
        """
        path = _file(self.params.path)
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: np.asarray(file[name]) for name in (self.params.x, self.params.y) if name in file}
                there = ", ".join(file.files)
        except (EOFError, OSError, ValueError, BadZipFile) as error:
            raise ConfigError(f"data.path: {path} is not an .npz file of plain arrays, or is damaged.") from error
        for key, name in (("x", self.params.x), ("y", self.params.y)):
            if name not in arrays:
                raise ConfigError(f"data.{key}: {path} has no array {name!r}; it has {there}.")
        x, y = arrays[self.params.x], arrays[self.params.y]
        labels = as_labels(y.ravel() if y.shape == (len(x), 1) else y, key="data.y", place=str(path))
        if labels.shape != x.shape[:1] or not len(labels):
            raise ConfigError(f"data.y: {path} has labels {list(y.shape)} for samples {list(x.shape)}.")
        return _pictures(x, str(path)), labels


@register_data("csv")
class Table(DataSource):
    """Rows of numbers with a label, in CSV files with a header: a table, or texts that were embedded before."""

    class Params(Section):
        """Which files, and where the label stands."""

        path: str | None = Field(None, description="a file, or a comma-separated list")
        label_column: str | None = Field(None, description="null: `label`, `y`, ... or else the last column")

        @model_validator(mode="after")
        def _needs_a_place(self) -> Self:
            if not self.path:
                raise ValueError("path must name one or more CSV files for data=csv")
            return self

    params: Params

    def identity(self) -> str:
        """A hash of the files' content and the label's column."""
        return digest(str(self.params.label_column), *(file_digest(path) for path in self._files()))

    def decode(self, cache_dir: Path) -> Samples:
        """Features as images uint8 [N, 1, 1, d], and labels int64 [N].

        Raises ConfigError where there is no such column, or a feature that is no number.
        """
        import pandas as pd

        try:
            table = pd.concat([pd.read_csv(path) for path in self._files()], ignore_index=True)
        except (ValueError, OSError) as error:
            raise ConfigError(f"data.path: {self.params.path} cannot be read as CSV ({error}).") from error
        columns, place = [str(name) for name in table.columns], str(self.params.path)
        label = self.params.label_column
        if label is None:
            label = next((name for name in USUAL_LABELS if name in columns), columns[-1])
        if label not in columns:
            raise ConfigError(f"data.label_column: {place} has no column {label!r}; it has {', '.join(columns)}.")
        features = table.drop(columns=label)
        if text := [str(name) for name, kind in features.dtypes.items() if kind.kind not in "iufb"]:
            raise ConfigError(f"data.path: column {text[0]!r} of {place} holds no numbers; encode it, or leave it out.")
        labels = as_labels(table[label].to_numpy(), key="data.label_column", place=place)
        return as_pixels(features.to_numpy(np.float64), key="data.path", place=place), labels

    def _files(self) -> list[Path]:
        return [_file(part.strip()) for part in (self.params.path or "").split(",")]


def _file(named: str | None) -> Path:
    path = Path(named or "").expanduser()
    if not path.is_file():
        raise ConfigError(f"data.path: there is no file {path}.")
    return path


def _pictures(x: NDArray[Any], place: str) -> NDArray[np.uint8]:
    """uint8 [N, C, H, W] of what the docstring of `Npz` allows."""
    if x.ndim == 2 and x.dtype.kind in "iufb":
        return as_pixels(x.astype(np.float64), key="data.x", place=place)
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4:
        return x
    raise ConfigError(
        f"data.x: {place} must hold uint8 pictures [N, H, W] or [N, C, H, W], or numbers [N, d], not {x.dtype} "
        f"{list(x.shape)}."
    )
