"""Arrays on disk under a key that says everything about them, mapped into memory instead of read.

Several worker processes that map one file share its pages.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError
from fedmd.storage import replacing

Arrays = dict[str, NDArray[Any]]


def default_cache_dir(configured: str | None) -> Path:
    """The cache folder, created: `configured` (runtime.cache_dir), else $FEDMD_CACHE, else ~/.cache/fedmd."""
    folder = Path(configured or os.environ.get("FEDMD_CACHE") or "~/.cache/fedmd").expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"runtime.cache_dir: the folder {folder} cannot be created ({error.strerror}).") from error
    return folder


def cached_arrays(folder: Path, key: str, names: tuple[str, ...], build: Callable[[], Arrays]) -> Arrays:
    """The arrays `names` kept under `key` in `folder`, read-only; built and kept when missing or damaged."""
    paths = {name: folder / f"{key}.{name}.npy" for name in names}
    try:
        return _mapped(paths)
    except (OSError, ValueError, EOFError):  # not there, or not a complete .npy file
        built = build()
    for name, path in paths.items():
        with replacing(path) as temporary, temporary.open("wb") as file:
            try:
                np.save(file, built[name], allow_pickle=False)
            except OSError as error:  # NumPy counts what was written, and does not say that the disk is full
                error.errno = error.errno or errno.ENOSPC
                raise
    return _mapped(paths)


def _mapped(paths: dict[str, Path]) -> Arrays:
    return {name: np.asarray(np.load(path, mmap_mode="r")) for name, path in paths.items()}
