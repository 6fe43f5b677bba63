"""Tensors and JSON in one safetensors file, written so that a reader sees the old or the new one, never half.

No pickle: a checkpoint may come from a stranger.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedmd.types import Json

HEADER_KEY = "fedmd"
_TENSOR = "tensor "  # the only key of a dictionary that stands for the tensor it names

Saved = dict[str, Any]  # what an object's `state()` returns and its `restore()` takes: dicts, lists, tensors and JSON


class CheckpointError(ValueError):
    """The file exists, but it is not a complete checkpoint."""


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
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def discard_leftovers(folder: Path, pattern: str) -> None:
    """Delete what killed writers of files named `pattern` left in `folder`. Nobody may be writing any meanwhile."""
    for temporary in folder.glob(f".{pattern}.*.tmp"):
        temporary.unlink(missing_ok=True)


def save(path: Path, tensors: dict[str, Tensor], metadata: Json) -> None:
    """Write `tensors` (any device, dtype and shape, scalars included) and JSON-able `metadata` to `path`.

    Strides are not kept: tensors come back contiguous. Tensors that share memory are written once each.
    """
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        plain[name] = tensor.detach().cpu().contiguous()
        storage = plain[name].untyped_storage().data_ptr()
        if storage in storages:
            plain[name] = plain[name].clone()
        storages.add(storage)
    header = json.dumps({"names": list(plain), "metadata": metadata})
    with replacing(path) as temporary:
        save_file(plain, temporary, metadata={HEADER_KEY: header})


def load(path: Path) -> tuple[dict[str, Tensor], Json]:
    """The tensors (on the CPU, in the order they were saved in) and the metadata of `path`.

    The tensors are private views of the mapped file: a large checkpoint costs memory only where it is read,
    and damage that keeps the file's length goes unnoticed.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is truncated, damaged or no checkpoint of ours.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    try:
        with safe_open(path, framework="pt") as stored:
            header = json.loads(stored.metadata()[HEADER_KEY])
            return {name: stored.get_tensor(name) for name in header["names"]}, header["metadata"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete fedmd checkpoint ({error}).") from error


def save_tree(path: Path, tree: Saved) -> None:
    """Write a tree of dicts (with strings for keys), lists, tensors, numbers, strings, booleans and None.

    Raises TypeError for anything else; then `path` stays as it was.
    """
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
