"""From a name in the configuration to a seeded, initialised net."""

from collections.abc import Callable

import torch
from torch import nn

from fedmd.config import ConfigError, ModelConfig
from fedmd.models.cnn import cnn
from fedmd.models.custom import custom
from fedmd.models.resnet import resnet18, resnet_small
from fedmd.seeding import seed_for
from fedmd.types import ImageSet

Builder = Callable[[ModelConfig, int, int, tuple[int, int]], nn.Module]

MODELS: dict[str, Builder] = {
    "resnet_small": resnet_small,
    "resnet18": resnet18,
    "cnn": cnn,
    "custom": custom,
}


def build_model(
    config: ModelConfig, *, channels: int, classes: int, image_size: tuple[int, int], seed: int
) -> nn.Module:
    """A net on the CPU, in train mode, for images [N, channels, *image_size] in [0, 1]; logits [N, classes].

    Its weights are a function of `seed` and the config; torch's global generator comes out as it went in.

    Raises:
        ConfigError: the name is unknown, or the custom factory cannot be used.
    """
    if config.name not in MODELS:
        raise ConfigError(f"model.name: {config.name!r} is not one of {', '.join(MODELS)}.")
    with torch.random.fork_rng(devices=[]):
        # the CPU generator alone: torch.manual_seed would also reset CUDA's, which is not forked
        torch.default_generator.manual_seed(seed_for(seed, "model"))
        return MODELS[config.name](config, channels, classes, image_size)


def model_for(config: ModelConfig, images: ImageSet, seed: int) -> nn.Module:
    """`build_model` for the shape and the classes of `images`."""
    _, channels, height, width = images.images.shape
    return build_model(config, channels=channels, classes=images.classes, image_size=(height, width), seed=seed)
