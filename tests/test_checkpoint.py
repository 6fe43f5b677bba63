"""Checkpoints come back exactly, or not at all."""

from pathlib import Path

import pytest
import torch

from fedmd.checkpoint import CheckpointError, load, replacing, save

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
