"""Devices by name, and what a number format and a layout do."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from fedmd.config import ConfigError, RunConfig
from fedmd.training.device import FLOAT32, Placement, flushing_denormals, resolve_device

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def test_auto_takes_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in ((True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        assert resolve_device("auto").type == expected
        assert resolve_device("cpu").type == "cpu"


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_an_absent_device_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"^runtime\.device: {name} is not available .*; there is cpu\.$"):
        resolve_device(name)


def test_float32_changes_nothing() -> None:
    model, x = nn.Conv2d(2, 3, 3), torch.rand(1, 2, 5, 5)
    expected = model(x)
    with FLOAT32.autocast():
        assert FLOAT32.images(x) is x
        assert FLOAT32.place(model) is model
        assert torch.equal(model(x), expected)


def test_bf16_rounds_the_forward_pass_and_keeps_float32_weights(make_config: Callable[..., RunConfig]) -> None:
    placement = Placement.of(make_config({"runtime.precision": "bf16"}).runtime)
    model = placement.place(nn.Linear(3, 2))
    with placement.autocast():
        assert model(torch.rand(4, 3)).dtype == torch.bfloat16
    assert model.weight.dtype == torch.float32


def test_channels_last_is_a_layout_not_a_value(make_config: Callable[..., RunConfig]) -> None:
    placement = Placement.of(make_config({"runtime.channels_last": True}).runtime)
    model, x = nn.Conv2d(4, 4, 3), torch.rand(2, 4, 6, 6)
    weight = model.weight.detach().clone()
    placed = placement.images(x)
    assert placed.is_contiguous(memory_format=torch.channels_last) and torch.equal(placed, x)
    assert placement.place(model) is model and torch.equal(model.weight, weight)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


def denormals_count() -> bool:
    return bool((torch.tensor([1e-40]) * 1).item())


def test_denormals_are_zero_inside_and_as_before_afterwards() -> None:
    assert denormals_count()
    with flushing_denormals():
        assert not denormals_count()
        with flushing_denormals():
            assert not denormals_count()
        assert not denormals_count()
    assert denormals_count()
    with pytest.raises(KeyError), flushing_denormals():
        raise KeyError
    assert denormals_count()


@CUDA
def test_placing_on_cuda() -> None:
    placement = Placement(resolve_device("cuda"), torch.bfloat16, channels_last=True)
    model, x = placement.place(nn.Conv2d(4, 4, 3)), placement.images(torch.rand(2, 4, 6, 6))
    with placement.autocast():
        out = model(x)
    assert out.is_cuda and out.dtype == torch.bfloat16
