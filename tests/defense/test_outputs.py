"""Penultimate features taken on their way in, and how often the models are run."""

import torch
from torch import Tensor, nn

from fedmd.config import ModelConfig
from fedmd.defense.samples.outputs import TrustedSet, compute_outputs
from fedmd.models import build_model
from fedmd.models.features import has_features, penultimate_features


class Counting(nn.Module):
    """A net that counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        logits: Tensor = self.body(x)
        return logits


def test_features_are_the_input_of_the_last_linear_layer_of_the_same_pass() -> None:
    model, historical = Counting(), Counting()
    x = torch.rand(7, 1, 4, 4)
    outputs = compute_outputs(historical, model, x, torch.zeros(7, dtype=torch.int64))
    assert (model.passes, historical.passes) == (1, 1)
    hidden = model.body[:3](x)
    assert outputs.features is not None and torch.equal(outputs.features, hidden.detach())
    assert torch.allclose(model.body[3](outputs.features), outputs.current)
    assert not outputs.features.requires_grad
    assert all(not module._forward_pre_hooks for module in model.modules())


def test_features_of_every_model_we_ship() -> None:
    for name, width, size in (("resnet_small", 4, 16), ("cnn", 2, 32)):
        model = build_model(
            ModelConfig(name=name, width=width), channels=1, classes=3, image_size=(8, 8), seed=0
        ).eval()
        with penultimate_features(model) as features:
            logits = model(torch.rand(5, 1, 8, 8))
        caught = features(5)
        assert caught is not None and caught.shape == (5, size)
        linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
        assert torch.allclose(linear(caught), logits, atol=1e-6)


def test_a_model_without_a_linear_layer_has_none() -> None:
    convolutions = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    assert not has_features(convolutions) and has_features(Counting())
    outputs = compute_outputs(convolutions, convolutions, torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    assert outputs.features is None


def test_features_that_are_not_a_samples_own_are_none() -> None:
    class Gated(nn.Module):
        """Its only linear layer sees no sample, but a table of 9 rows."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] + self.layer(torch.ones(9, 4)).mean(0)

    outputs = compute_outputs(Gated(), Gated(), torch.rand(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))
    assert outputs.features is None


def test_each_model_runs_once_on_the_trusted_set_and_only_for_what_is_wanted() -> None:
    historical, current = Counting(), Counting()
    x, y = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    trusted = TrustedSet(historical, current, x, y)
    assert (historical.passes, current.passes) == (0, 0)
    samples = trusted.samples
    assert (historical.passes, current.passes) == (0, 1)
    outputs = trusted.outputs
    assert trusted.outputs is outputs and trusted.samples is samples
    assert (historical.passes, current.passes) == (1, 1)
    plain = compute_outputs(historical, current, x, y)
    assert torch.equal(outputs.historical, plain.historical) and torch.equal(outputs.current, plain.current)
    assert outputs.are_trusted and not plain.are_trusted and outputs.trusted is not None
    assert outputs.trusted() is samples
    assert current.training and historical.training
