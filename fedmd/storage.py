"""Files: atomic writes, strict JSON, digests, and tensors with JSON in safetensors files.

No pickle: a checkpoint may come from somebody else.
A reader sees the old file or the whole new one, never half. Nothing here imports torch before tensors are saved or
loaded, for reports and the command line start in a quarter of the time without it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import math
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmd.types import Json

if TYPE_CHECKING:
    from torch import Tensor

HEADER_KEY = "fedmd"
_TENSOR = "tensor "  # the only key of a dictionary that stands for the tensor it names

Saved = dict[str, Any]  # what an object's `state()` returns and its `restore()` takes: dicts, lists, tensors and JSON


_DISK_TROUBLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
}  # fmt: skip
_SQLITE_TROUBLE = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM,
}  # fmt: skip


class CheckpointError(ValueError):
    """The file exists, but it is not a complete checkpoint, or not as it was written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the place of `path` once the block is done.

    The content is on disk (fsync) before the name is. If the block raises, `path` stays as it was. Concurrent
    writers each have their own temporary file; the last one to finish wins. One that is killed leaves its file to
    `discard_leftovers`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # whoever reads of it knows no temporary name
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """No other process of this machine is in such a block for `path` meanwhile; they wait.

    The kernel frees the lock, however the process ends. Its empty file `.NAME.lock` beside `path` stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def trouble(error: OSError | sqlite3.OperationalError) -> str | None:
    """What is wrong with the disk or the rights on it, in words; None for an error of another kind."""
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more of the same
        return f"the audit trail cannot be written or read ({error})" if code in _SQLITE_TROUBLE else None
    if error.errno not in _DISK_TROUBLE:
        return None
    return ": ".join(filter(None, [error.filename and str(error.filename), os.strerror(error.errno)]))


def discard_leftovers(folder: Path, pattern: str) -> None:
    """Delete what killed writers of files named `pattern` left in `folder`. Nobody may be writing any meanwhile."""
    library = [folder.glob(".tmp??????")] if pattern.endswith(".safetensors") else []  # safetensors' own, before ours
    for temporary in itertools.chain(folder.glob(f".{pattern}.*.tmp"), *library):
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` by `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def strict(value: Any) -> Any:
    """`value` as plain JSON types: NumPy scalars and arrays unwrapped, NaN and ±infinity become None."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return strict(value.tolist())
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON text of `value`; keys keep their order."""
    return json.dumps(strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as strict, indented JSON, by `replacing`."""
    write_text(path, dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`. Raises OSError or ValueError where there is none."""
    return json.loads(path.read_text(encoding="utf-8"))


def digest(*parts: str | bytes | NDArray[Any]) -> str:
    """A 32-digit hash of `parts`, in order; arrays count with dtype and shape."""
    hasher = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            hasher.update(f"{part.dtype.str}{part.shape}".encode())
            content: Any = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
        else:
            content = part.encode() if isinstance(part, str) else part
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
    return hasher.hexdigest()[:32]


def file_digest(path: Path) -> str:
    """The SHA-256 of the content of a file, 64 hexadecimal digits (0.1 s for 46 MB)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(path: Path, tensors: dict[str, Tensor], metadata: Json) -> None:
    """Write `tensors` (any device, dtype and shape, scalars included) and JSON-able `metadata` to `path`.

    Strides are not kept: tensors come back contiguous. Tensors that share memory are written once each.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        plain[name] = tensor.detach().cpu().contiguous()
        storage = plain[name].untyped_storage().data_ptr()
        if storage in storages:
            plain[name] = plain[name].clone()
        storages.add(storage)
    header = json.dumps({"names": list(plain), "metadata": metadata})  # `names` keeps the order
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata={HEADER_KEY: f"{_content_digest(header, plain)} {header}"})
        except SafetensorError as error:  # it puts the system's error into words
            if found := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
            raise


def load(path: Path, *, check: bool = True) -> tuple[dict[str, Tensor], Json]:
    """The tensors (on the CPU, in the order they were saved in) and the metadata of `path`.

    The tensors are private views of the mapped file. With `check` all of it is read once, for its SHA-256; without,
    only what is used is ever read, and a changed byte goes unnoticed: for files that this run has just written.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, damaged or no checkpoint of ours.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as stored:
            written, _, text = stored.metadata()[HEADER_KEY].partition(" ")  # one key: several have no order
            header = json.loads(text)
            tensors = {name: stored.get_tensor(name) for name in header["names"]}
            if check and _content_digest(text, tensors) != written:
                raise ValueError("its SHA-256 is not the one it was written with")
            return tensors, header["metadata"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete fedmd checkpoint ({error}).") from error


def _content_digest(header: str, tensors: dict[str, Tensor]) -> str:
    """SHA-256 over the header's text and each tensor's name, dtype, shape and bytes, in order."""
    import torch

    hasher = hashlib.sha256(header.encode())
    for name, tensor in tensors.items():
        hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def save_tree(path: Path, tree: Saved) -> None:
    """Write a tree of dicts (with strings for keys), lists, tensors, numbers, strings, booleans and None.

    Raises TypeError for anything else; then `path` stays as it was.
    """
    from torch import Tensor

    tensors: dict[str, Tensor] = {}

    def without_tensors(value: object, place: str) -> object:
        if isinstance(value, Tensor):
            tensors[place] = value
            return {_TENSOR: place}
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value) or _TENSOR in value:
                raise TypeError(f"{place}: the keys of a saved dictionary must be strings")
            return {key: without_tensors(item, f"{place}/{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [without_tensors(item, f"{place}/{number}") for number, item in enumerate(value)]
        if value is None or isinstance(value, str | int | float):
            return value
        raise TypeError(f"{place}: a {type(value).__name__} cannot be saved")

    stripped = without_tensors(tree, "")
    save(path, tensors, {"tree": stripped})


def load_tree(path: Path) -> Saved:
    """What `save_tree` wrote; tuples come back as lists. Raises as `load` does."""
    tensors, metadata = load(path)

    def with_tensors(value: object) -> Any:
        if isinstance(value, dict):
            if set(value) == {_TENSOR}:
                return tensors[value[_TENSOR]]
            return {key: with_tensors(item) for key, item in value.items()}
        return [with_tensors(item) for item in value] if isinstance(value, list) else value

    try:
        tree: Saved = with_tensors(metadata["tree"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a complete fedmd checkpoint ({error}).") from error
    return tree
