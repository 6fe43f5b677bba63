"""Checkpoints come back exactly, or not at all."""

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.storage import (
    CheckpointError,
    digest,
    discard_leftovers,
    file_digest,
    load,
    load_tree,
    read_json,
    replacing,
    save,
    save_tree,
    write_json,
)

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]


def test_tensors_and_metadata_come_back_exactly(tmp_path: Path) -> None:
    tensors = {f"z/{dtype}": torch.arange(6).reshape(2, 3).to(dtype) for dtype in DTYPES}
    tensors |= {"scalar": torch.tensor(7), "empty": torch.zeros(0, 3), "nan": torch.tensor([float("nan"), -0.0])}
    metadata = {"epoch": 3, "nested": {"names": ["ü", None], "pi": 3.141592653589793}}
    save(tmp_path / "deep" / "file.safetensors", tensors, metadata)
    loaded, read = load(tmp_path / "deep" / "file.safetensors")
    assert read == metadata
    assert list(loaded) == list(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_views_shared_memory_and_gradients_are_no_obstacle(tmp_path: Path) -> None:
    base = torch.arange(12.0, requires_grad=True)
    tensors = {"whole": base, "same": base, "part": base[3:6], "strided": base.view(3, 4).t()}
    save(tmp_path / "a", tensors, {})
    loaded, _ = load(tmp_path / "a")
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)


def test_changing_a_loaded_tensor_changes_no_file(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": torch.zeros(4)}, {})
    load(tmp_path / "a")[0]["x"].fill_(1)
    assert torch.equal(load(tmp_path / "a")[0]["x"], torch.zeros(4))


@pytest.mark.parametrize("kept", [0, 4, 20, -1])
def test_a_truncated_file_is_an_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a"
    save(path, {"x": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="not a complete fedmd checkpoint"):
        load(path)


def test_a_foreign_safetensors_file_is_an_error(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "foreign")
    with pytest.raises(CheckpointError):
        load(tmp_path / "foreign")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none")


def test_an_interrupted_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_discarded_by_pattern(tmp_path: Path) -> None:
    left = {}
    for name in ("a-1", "a-2", "b"):
        with suppress(KeyboardInterrupt), replacing(tmp_path / name) as temporary:
            left[name] = temporary.name
            raise KeyboardInterrupt
        (tmp_path / left[name]).write_text("half")  # SIGKILL would not have deleted it
        (tmp_path / name).write_text("old")
    discard_leftovers(tmp_path, "a-*")
    assert {path.name for path in tmp_path.iterdir()} == {"a-1", "a-2", "b", left["b"]}
    discard_leftovers(tmp_path / "none", "a-*")


# -- trees of state ---------------------------------------------------------------------------------------------------

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.floats(width=32, allow_nan=False), max_size=4).map(torch.tensor)
)
TREES = st.dictionaries(
    st.text(max_size=4),
    st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)),
    max_size=4,
)


def equal(a: Any, b: Any) -> bool:
    """The same tree, to the bit and the type."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and repr(a) == repr(b)


@settings(max_examples=60)
@given(TREES)
def test_a_tree_comes_back_as_it_was(tree: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        save_tree(Path(folder, "a"), tree)
        assert equal(load_tree(Path(folder, "a")), tree)


@pytest.mark.parametrize("tree", [{1: 2}, {"a": {2: torch.zeros(1)}}, {"a": [object()]}, {"a": {"tensor ": "b"}}])
def test_what_is_no_tree_is_not_saved(tmp_path: Path, tree: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        save_tree(tmp_path / "a", tree)
    assert not list(tmp_path.iterdir())


def test_a_file_without_a_tree_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError):
        load_tree(tmp_path / "a")


def test_digests_tell_values_shapes_types_and_borders_apart() -> None:
    parts = [
        (np.arange(4),),
        (np.arange(4).reshape(2, 2),),
        (np.arange(4).astype(np.uint64),),
        (np.array(3),),
        (np.zeros(0),),
        ("ab", "c"),
        ("a", "bc"),
        (b"abc",),
    ]
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest(np.arange(8)[::2]) == digest(np.arange(8)[::2].copy())


def test_a_file_s_digest_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_written_json_is_strict_and_comes_back(tmp_path: Path) -> None:
    value = {"ü": [np.float64(0.1), np.nan, -np.inf, np.arange(2)], 3: {"none": None}}
    write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(tmp_path / "deep" / "a.json") == {"ü": [0.1, None, None, [0, 1]], "3": {"none": None}}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.json"]


def test_the_module_imports_no_torch() -> None:
    code = "import sys, fedmd.storage; assert not {'torch', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


TREE = {"weights": torch.arange(40.0), "flags": torch.tensor([True, False]), "seconds": 1.5, "names": ["a", "b"]}


@settings(max_examples=200, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_any_flipped_byte_of_a_file_is_found_or_changes_nothing(place: float, flip: int) -> None:
    """Spaces that fill up a header mean nothing; what is loaded is never other than what was saved."""
    with TemporaryDirectory() as name:
        path = Path(name) / "a"
        save_tree(path, TREE)
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= flip
        path.write_bytes(content)
        with suppress(CheckpointError):
            loaded = load_tree(path)
            assert loaded.keys() == TREE.keys() and (loaded["seconds"], loaded["names"]) == (1.5, ["a", "b"])
            for key in ("weights", "flags"):
                assert loaded[key].dtype == TREE[key].dtype and torch.equal(loaded[key], TREE[key])


def test_a_flipped_byte_of_a_tensor_is_an_error_unless_nobody_asked(tmp_path: Path) -> None:
    save(tmp_path / "a", {"x": torch.zeros(100)}, {})
    content = bytearray((tmp_path / "a").read_bytes())
    content[-1] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(tmp_path / "a")
    assert not torch.equal(load(tmp_path / "a", check=False)[0]["x"], torch.zeros(100))


def test_equal_content_makes_equal_files(tmp_path: Path) -> None:
    for name in "ab":
        save_tree(tmp_path / name, TREE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
