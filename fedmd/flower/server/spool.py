"""A round's updates while the round lasts: so many bytes of them in memory, those that come later in a file.

What screens and averages looks at one update after another, so one of them at a time is read back. The file has no
name: it is gone with the round, and with the process, however that ends.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.flower.wire.arrays import ArrayView, read_array, record_of
from fedmd.flower.wire.updates import ClientUpdate

_ALIGNED = 64  # bytes, as PyTorch's own memory is


class _File:
    """Arrays in a file without a name in `folder`, which lasts as long as somebody holds one of them."""

    def __init__(self, folder: Path) -> None:
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  no block's: as long as the object
        self._end = 0
        self._lock = Lock()

    def put(self, values: NDArray[Any]) -> int:
        """Where the values begin that were written. Raises OSError, as on a full disk."""
        left = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
        with self._lock:
            start = self._end
            self._end += -(-len(left) // _ALIGNED) * _ALIGNED
        at = start
        while left:
            written = os.pwrite(self.file.fileno(), left, at)
            left, at = left[written:], at + written
        return start


class ArrayInFile(ArrayView):
    """See `ArrayView`; the values are mapped anew whenever they are asked for, and are nowhere in between."""

    def __init__(self, file: _File, values: NDArray[Any]) -> None:
        self.dtype, self.shape, self.stype = str(values.dtype), values.shape, "numpy.ndarray"
        self._file, self._kind, self._start = file, values.dtype, file.put(values)

    @property
    def values(self) -> NDArray[Any]:  # type: ignore[override]
        """Read-only."""
        return np.asarray(np.memmap(self._file.file, self._kind, "r", self._start, self.shape))

    def numpy(self) -> NDArray[Any]:
        """The same."""
        return self.values


class Spool:
    """Keeps at most `in_memory` bytes of a round's updates in memory, and the others in `folder`."""

    def __init__(self, folder: Path, in_memory: int) -> None:
        self._folder = folder
        self._in_memory = in_memory
        self.begin_round()

    def begin_round(self) -> None:
        """Forget the updates before: their memory and their file are whose who still holds them."""
        self._bytes = 0
        self._file: _File | None = None
        self._lock = Lock()

    def keep(self, update: ClientUpdate) -> ClientUpdate:
        """The same update, which may lie elsewhere from now on; called by several threads. Raises OSError."""
        arrays: Mapping[str, NDArray[Any]] = {n: read_array(n, array) for n, array in update.arrays.items()}
        size = sum(values.nbytes for values in arrays.values())
        with self._lock:
            if self._bytes + size <= self._in_memory:
                self._bytes += size
                return update
            if self._file is None:
                self._file = _File(self._folder)
            file = self._file
        kept = {n: ArrayInFile(file, values) if values.size else update.arrays[n] for n, values in arrays.items()}
        return replace(update, arrays=record_of(kept))
