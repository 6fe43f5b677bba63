"""Convolutions and batch norm to be differentiated twice, against finite differences and PyTorch's own formulas."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.attacks.gradients import LiveGradient
from fedmd.attacks.second_order import TwiceDifferentiable, batch_norm, conv2d

DOUBLE = torch.float64


def tensor(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": (2, 1), "dilation": (2, 1)},
        {"groups": 2, "padding": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("biased", [False, True])
def test_a_convolution_has_the_second_derivatives_of_finite_differences(options: dict, biased: bool) -> None:
    x = tensor(2, 4, 5, 4, seed=0).requires_grad_()
    weight = tensor(6, 4 // options.get("groups", 1), 3, 2, seed=1).requires_grad_()
    bias = tensor(6, seed=2).requires_grad_() if biased else None
    tensors = (x, weight) if bias is None else (x, weight, bias)

    assert torch.equal(conv2d(*tensors, **options), F.conv2d(*tensors, **options))
    assert torch.autograd.gradgradcheck(lambda *t: conv2d(*t, **options), tensors)


def test_batch_norm_has_the_second_derivatives_of_finite_differences() -> None:
    mean, variance = tensor(3, seed=3), tensor(3, seed=4).square() + 0.5
    tensors = tuple(t.requires_grad_() for t in (tensor(2, 3, 2, 2, seed=0), tensor(3, seed=1), tensor(3, seed=2)))

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out: Tensor = batch_norm(x, mean, variance, weight, bias)
        return out

    assert torch.equal(ours(*tensors), F.batch_norm(tensors[0], mean, variance, *tensors[1:]))
    assert torch.autograd.gradgradcheck(ours, tensors)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("wrt", ["parameters", "samples"])
@pytest.mark.parametrize("kept", [0, 100])  # graphs made again, and kept
def test_a_net_is_differentiated_twice_as_by_pytorch(layout: torch.memory_format, wrt: str, kept: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, 2, "valid"),
        nn.MaxPool2d(2), nn.Conv2d(4, 5, 2, bias=False), nn.BatchNorm2d(5, affine=False), nn.Flatten(), nn.Linear(5, 3),
    ).to(DOUBLE, memory_format=layout).eval()  # fmt: skip
    x, y = tensor(6, 3, 9, 9, seed=5).to(memory_format=layout), torch.tensor([0, 1, 2, 0, 1, 2])
    vectors = [tensor(*p.shape, seed=n) for n, p in enumerate(model.parameters())]

    live = LiveGradient(model, x, y, wrt=wrt, kept=kept)  # type: ignore[arg-type]
    pulled = live.pull(vectors)

    probe = x.clone().requires_grad_()
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(model(probe), y), parameters, create_graph=True)
    scalar = torch.stack([(g * v).sum() for g, v in zip(gradients, vectors, strict=True)]).sum()
    expected = torch.autograd.grad(scalar, [probe] if wrt == "samples" else parameters, materialize_grads=True)
    for ours, theirs in zip((*live.value, *pulled), (*gradients, *expected), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-12)


def test_what_it_does_not_cover_is_pytorchs() -> None:
    """One sample without its axis, padding by name, a convolution that is no image's, batch norm in training."""
    x, weight = tensor(3, 6, 6, seed=0), tensor(4, 3, 3, 3, seed=1)
    line, kernel = tensor(2, 3, 6, seed=2), tensor(4, 3, 3, seed=3)
    mean, variance = torch.zeros(3, dtype=DOUBLE), torch.ones(3, dtype=DOUBLE)

    with TwiceDifferentiable():
        single, same = F.conv2d(x, weight), F.conv2d(x[None], weight, padding="same")
        of_line = F.conv1d(line, kernel)
        trained = F.batch_norm(x[None], mean, variance, torch.ones_like(mean), torch.zeros_like(mean), training=True)

    assert torch.equal(single, F.conv2d(x, weight))
    assert torch.equal(same, F.conv2d(x[None], weight, padding="same"))
    assert torch.equal(of_line, F.conv1d(line, kernel))
    assert trained.mean().abs() < 1e-12  # the batch's own statistics


def test_under_autocast_numbers_are_rounded_as_pytorch_rounds_them() -> None:
    x, weight = tensor(2, 3, 6, 6, seed=0).float(), tensor(4, 3, 3, 3, seed=1).float()
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.conv2d(x, weight)
        with TwiceDifferentiable():
            found = F.conv2d(x, weight)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
