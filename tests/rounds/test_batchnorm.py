"""Running statistics that no client has a say in, and those of a whole burn-in part."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fedmd.config import RunConfig
from fedmd.data.split import split_images
from fedmd.rounds.learner import OnlineLearner
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import FLOAT32
from fedmd.types import ImageSet, StreamBatch

MakeConfig = Callable[[dict[str, object]], RunConfig]


def online_learner(config: RunConfig, images: ImageSet, cache: Path) -> tuple[OnlineLearner, torch.Tensor]:
    split = split_images(images, config.data.splits, config.seed)
    trained: BurnIn = burn_in(config, images, split, placement=FLOAT32, cache_dir=cache)
    learner = OnlineLearner(config, images, split, trained, FLOAT32)
    return learner, images.take(split.trusted).tensors()[0]


def first_batchnorm(model: nn.Module) -> nn.BatchNorm2d:
    return next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))


def input_of(model: nn.Module, layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        model.eval()(x)
    handle.remove()
    return seen[0]


def test_trusted_statistics_are_those_of_the_trusted_set_after_every_step(
    make_config: MakeConfig, images: ImageSet, tmp_path: Path
) -> None:
    config = make_config({"model.name": "resnet_small", "training.online.batchnorm": "trusted", "defense.name": "none"})
    learner, trusted = online_learner(config, images, tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (20, *images.images.shape[1:]), dtype=np.uint8)
    for step in range(3):
        layer = first_batchnorm(learner.model)
        assert layer.running_mean is not None and layer.running_var is not None
        activations = input_of(learner.model, layer, trusted)
        assert torch.allclose(layer.running_mean, activations.mean((0, 2, 3)), atol=1e-5)
        assert torch.allclose(layer.running_var, activations.var((0, 2, 3)), rtol=1e-4, atol=1e-6)
        learner.learn([StreamBatch(0, step, noise, np.zeros(20, np.int64))])


def test_precise_statistics_are_those_of_the_whole_burn_in_part(
    make_config: MakeConfig, images: ImageSet, tmp_path: Path
) -> None:
    config = make_config({"model.name": "resnet_small", "defense.name": "none"})
    settings = config.training.burn_in.model_copy(update={"batchnorm": "precise", "batch_size": 10_000})
    training = config.training.model_copy(update={"burn_in": settings})
    config = config.model_copy(update={"training": training})
    learner, _ = online_learner(config, images, tmp_path)
    split = split_images(images, config.data.splits, config.seed)
    x = images.take(split.burn_in).tensors()[0]
    layer = first_batchnorm(learner.model)
    assert layer.running_mean is not None
    assert torch.allclose(layer.running_mean, input_of(learner.model, layer, x).mean((0, 2, 3)), atol=1e-5)
