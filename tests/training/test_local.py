"""A client's local epochs against a loop written out by hand."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fedmd.config import LocalConfig, RunConfig
from fedmd.models import model_for
from fedmd.seeding import generator
from fedmd.training.local import floating, train_client, train_locally
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]
SETTINGS = LocalConfig(epochs=2, batch_size=4, lr=0.1, momentum=0.9)


def naive(model: nn.Module, x: Tensor, y: Tensor, settings: LocalConfig, order: torch.Generator, mu: float) -> None:
    """SGD by autograd alone; the proximal term is part of the loss here."""
    start = [parameter.detach().clone() for parameter in model.parameters()]
    velocity = [torch.zeros_like(parameter) for parameter in model.parameters()]
    model.train()
    for _ in range(settings.epochs):
        permutation = torch.randperm(len(x), generator=order)
        for first in range(0, len(x), settings.batch_size):
            chosen = permutation[first : first + settings.batch_size]
            loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
            loss = loss + mu / 2 * sum(((p - s) ** 2).sum() for p, s in zip(model.parameters(), start, strict=True))
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, v, gradient in zip(model.parameters(), velocity, gradients, strict=True):
                    v.mul_(settings.momentum).add_(gradient)
                    parameter.sub_(settings.lr * v)


def data(n: int = 10) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(n, 1, 8, 8), torch.randint(0, 4, (n,))


@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("name", ["cnn", "resnet_small"])
def test_local_epochs_are_sgd(make_config: Make, images: ImageSet, name: str, mu: float) -> None:
    model = model_for(make_config({"model": {"name": name, "width": 2}}).model, images, 0)
    mine, theirs = copy.deepcopy(model), copy.deepcopy(model)
    x, y = data()
    train_locally(mine, x, y, SETTINGS, generator(0, "order"), proximal_mu=mu)
    naive(theirs, x, y, SETTINGS, generator(0, "order"), mu)
    for (key, tensor), other, start in zip(
        mine.state_dict().items(), theirs.state_dict().values(), model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(tensor, other, rtol=1e-5, atol=1e-6)
        assert not torch.equal(tensor, start) or "normalise" in key or tensor.numel() == 0, key


def test_the_proximal_term_pulls_back(make_config: Make, images: ImageSet) -> None:
    model = model_for(make_config({"model": {"name": "cnn", "width": 2}}).model, images, 0)
    moved = {}
    for mu in (0.0, 5.0):
        trained = copy.deepcopy(model)
        train_locally(trained, *data(), SETTINGS, generator(0, "order"), proximal_mu=mu)
        pairs = zip(trained.parameters(), model.parameters(), strict=True)
        moved[mu] = sum(float((a - b).detach().square().sum()) for a, b in pairs)
    assert 0 < moved[5.0] < 0.5 * moved[0.0]


def test_a_last_batch_of_one_sample(make_config: Make, images: ImageSet) -> None:
    """It has no variance where a layer has one pixel; its batch-norm statistics are left out."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))
    x, y = data(5)
    train_locally(model, x, y, LocalConfig(batch_size=4, lr=0.1), generator(0, "order"))
    assert int(model[2].num_batches_tracked) == 1
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_a_clients_model_is_a_function_of_client_and_round(make_config: Make, images: ImageSet) -> None:
    config = make_config({"local": {"batch_size": 4}})
    model = model_for(config.model, images, 0)
    start = copy.deepcopy(model.state_dict())
    own = images.take(torch.arange(12).numpy())

    def learn(client: int, round: int) -> dict[str, Tensor]:
        train_client(model, start, own, config, client=client, round=round)
        return {key: tensor.clone() for key, tensor in model.state_dict().items()}

    first, others = learn(1, 2), [learn(2, 2), learn(1, 3)]
    again = learn(1, 2)
    assert all(torch.equal(first[key], again[key]) for key in first)
    for other in others:
        assert any(not torch.equal(first[key], other[key]) for key in first)


def test_counters_are_not_averaged() -> None:
    state: dict[str, Any] = nn.BatchNorm2d(3).state_dict()
    assert list(floating(state)) == ["weight", "bias", "running_mean", "running_var"]
