"""One online step against the same step written by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmd.config import ModelConfig, OnlineConfig
from fedmd.models import build_model
from fedmd.training.device import Placement
from fedmd.training.online import make_optimizer, median_statistics, online_step, set_momentum

SETTINGS = OnlineConfig(lr=0.05, momentum=0.9)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def batch(n: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    randomness = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 8, 8, generator=randomness), torch.randint(0, 4, (n,), generator=randomness)


def net(name: str = "resnet_small") -> nn.Module:
    return build_model(ModelConfig(name=name, width=4), channels=1, classes=4, image_size=(8, 8), seed=0)


def test_two_steps_are_momentum_sgd_by_hand() -> None:
    model = net()
    reference, velocity = copy.deepcopy(model).train(), None
    optimizer = make_optimizer(model.eval(), SETTINGS)
    for seed in range(2):
        x, y = batch(seed=seed)
        loss = online_step(model, optimizer, x, y)
        expected = cross_entropy(reference(x), y)
        gradients = torch.autograd.grad(expected, list(reference.parameters()))
        velocity = gradients if velocity is None else [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        with torch.no_grad():
            for parameter, v in zip(reference.parameters(), velocity, strict=True):
                parameter -= 0.05 * v
        assert loss == pytest.approx(expected.item(), rel=1e-6)
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def test_left_over_gradients_do_not_count() -> None:
    x, y = batch()
    clean, dirty = net(), net()
    cross_entropy(dirty(x), y).backward()
    dirty.load_state_dict(clean.state_dict())
    for model in (clean, dirty):
        online_step(model, make_optimizer(model, SETTINGS), x, y)
    assert all(torch.equal(a, b) for a, b in zip(clean.parameters(), dirty.parameters(), strict=True))


@pytest.mark.parametrize("clip_norm", [1e-3, 0.5, 1e6])
def test_a_clipped_step_by_hand(clip_norm: float) -> None:
    """theta - lr * g * min(1, c / ||g||), ||g|| over all parameters; momentum sees the clipped gradient."""
    model = net()
    reference, velocity = copy.deepcopy(model).train(), None
    optimizer = make_optimizer(model, SETTINGS)
    for seed in range(2):
        x, y = batch(seed=seed)
        online_step(model, optimizer, x, y, clip_norm=clip_norm)
        gradients = torch.autograd.grad(cross_entropy(reference(x), y), list(reference.parameters()))
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        assert norm > 0.5 or clip_norm != 0.5  # so that 0.5 clips and 1e6 does not
        gradients = tuple(g * min(1.0, clip_norm / norm) for g in gradients)
        velocity = gradients if velocity is None else [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        with torch.no_grad():
            for parameter, v in zip(reference.parameters(), velocity, strict=True):
                parameter -= 0.05 * v
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[key], value)


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if key.endswith(STATISTICS)}


def test_frozen_batchnorm_keeps_its_statistics_and_learns_its_weights() -> None:
    model = net()
    optimizer = make_optimizer(model, SETTINGS)
    online_step(model, optimizer, *batch())
    before, weights = statistics(model), model[2].weight.detach().clone()
    online_step(model, optimizer, *batch(seed=1), batchnorm="frozen")
    assert all(torch.equal(before[key], value) for key, value in statistics(model).items())
    assert not torch.equal(model[2].weight, weights)
    online_step(model, optimizer, *batch(seed=2))
    assert not torch.equal(statistics(model)["2.running_mean"], before["2.running_mean"])


def test_a_batch_of_one_learns_with_the_running_statistics() -> None:
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    before = statistics(model)
    assert online_step(model, make_optimizer(model, SETTINGS), *batch(1)) is not None
    assert all(torch.equal(before[key], value) for key, value in statistics(model).items())


def test_an_empty_batch_is_no_step() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    assert online_step(model, make_optimizer(model, SETTINGS), *batch(0)) is None
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_no_weight_decay() -> None:
    optimizer = make_optimizer(net(), SETTINGS)
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.05, 0.9, 0)


def test_bf16_steps_learn() -> None:
    model, (x, y) = net("cnn"), batch(16)
    optimizer = make_optimizer(model, SETTINGS)
    placement = Placement(dtype=torch.bfloat16)
    losses = [online_step(model, optimizer, x, y, placement=placement) for _ in range(30)]
    assert all(loss is not None and math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_on_cuda_is_close_to_one_on_the_cpu(dtype: torch.dtype) -> None:
    placement = Placement(torch.device("cuda"), dtype, channels_last=True)
    here, there = net(), placement.place(net())
    x, y = batch(32)
    loss = online_step(here, make_optimizer(here, SETTINGS), x, y)
    optimizer = make_optimizer(there, SETTINGS)
    assert online_step(there, optimizer, placement.images(x), y.cuda(), placement=placement) == pytest.approx(
        loss, rel=0.05
    )
    for a, b in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(b.cpu(), a, atol=0.02, rtol=0.05)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("done", [0, 1, 3])
def test_momentum_goes_on_where_it_was(momentum: float, done: int) -> None:
    settings = OnlineConfig(lr=0.05, momentum=momentum)
    whole = net("cnn")
    optimizer = make_optimizer(whole, settings)
    for step in range(done):
        online_step(whole, optimizer, *batch(seed=step))
    half = copy.deepcopy(whole)
    fresh = make_optimizer(half, settings)
    set_momentum(fresh, optimizer.momentum_buffers)
    for step in range(done, 4):
        online_step(whole, optimizer, *batch(seed=step))  # the restored buffers are copies: this must not move them
        online_step(half, fresh, *batch(seed=step))
    for left, right in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(left, right)


def test_median_statistics_by_hand() -> None:
    """Three samples of two channels and two positions: one wild sample moves neither median."""
    x = torch.tensor([[[0.0, 2.0], [1.0, 1.0]], [[2.0, 4.0], [1.0, 3.0]], [[900.0, -100.0], [50.0, 70.0]]])
    mean, variance = median_statistics(x)
    # means 1, 3, 400 and 1, 2, 60; squared distances to 3: (9 + 1) / 2, (1 + 1) / 2, huge; to 2: 1, (1 + 1) / 2, huge
    assert mean.tolist() == [3.0, 2.0] and variance.tolist() == [5.0, 1.0]
    flat_mean, flat_variance = median_statistics(torch.tensor([[1.0], [2.0], [9.0]]))  # after a linear layer
    assert (flat_mean.item(), flat_variance.item()) == (2.0, 1.0)


def test_a_step_with_median_statistics_by_hand() -> None:
    """One batch-norm layer and a linear one; running statistics follow, parameters move along the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=0.5), nn.Flatten(), nn.Linear(64, 4))
    reference = copy.deepcopy(model)
    x, y = batch(5)
    loss = online_step(model, make_optimizer(model, SETTINGS), x, y, batchnorm="median")
    norm, linear = reference[0], reference[2]
    means = x.mean(dim=(1, 2, 3))
    center = means.sort().values[2]
    spread = ((x - center) ** 2).mean(dim=(1, 2, 3)).sort().values[2]
    normal = (x - center) / (spread + norm.eps).sqrt() * norm.weight + norm.bias
    expected = cross_entropy(linear(normal.flatten(1)), y)
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    for after, before, gradient in zip(model.parameters(), reference.parameters(), gradients, strict=True):
        torch.testing.assert_close(after, before - 0.05 * gradient)
    torch.testing.assert_close(model[0].running_mean, 0.5 * center[None])
    torch.testing.assert_close(model[0].running_var, 0.5 + 0.5 * spread[None])
    assert not model[0]._forward_hooks


def test_median_statistics_bound_what_one_sample_does() -> None:
    x, y = batch(9)
    wild = x.clone()
    wild[0] = 1e4
    moved = {}
    for kind in ("train", "median"):
        models = [net(), net()]
        for model, images in zip(models, (x, wild), strict=True):
            online_step(model, make_optimizer(model, SETTINGS), images, y, batchnorm=kind)  # type: ignore[arg-type]
        first, second = (statistics(model) for model in models)
        moved[kind] = max(float((first[k] - second[k]).abs().max()) for k in first if k.endswith("mean"))
    assert moved["median"] < 1 < 100 < moved["train"]
