"""What every model is, and the way from the configuration to a seeded, initialised net."""

from collections.abc import Callable
from traceback import extract_tb
from typing import Any

import numpy as np
import torch
from torch import nn

from fedmd.config import ConfigError, ModelConfig
from fedmd.registry import Plugin
from fedmd.seeding import seed_for
from fedmd.types import ImageSet


class Model(Plugin):
    """An architecture: a subclass builds the net."""

    def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
        """A net on the CPU for images [N, channels, *image_size] in [0, 1] that gives logits [N, classes].

        Weights are drawn from torch's global generator. A net normalises its input itself, see `Normalise`.
        """
        raise NotImplementedError

    @classmethod
    def of_factory(cls, found: Any) -> type["Model"]:
        """A function with the arguments of `build` as a model without settings of its own.

        Raises:
            ValueError: it is no function.
        """
        if isinstance(found, type) or not callable(found):
            raise ValueError(f"factory: must name a subclass of fedmd.models.Model or a function, not {found!r}")
        function: Callable[..., object] = found
        module = getattr(found, "__module__", "")
        place = f"{module}:{getattr(found, '__qualname__', found)}"

        class Built(Model):
            name, label, __doc__, __module__ = "custom", place, found.__doc__, module

            def build(self, *, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
                try:
                    model = function(channels=channels, classes=classes, image_size=image_size)
                except TypeError as error:
                    raise ConfigError(
                        f"model.factory: {place} must take channels=, classes= and image_size= ({error})."
                    ) from error
                except Exception as error:  # whatever somebody's function may do
                    at, told = extract_tb(error.__traceback__)[-1], " ".join(f"{type(error).__name__}: {error}".split())
                    raise ConfigError(
                        f"model.factory: {place} failed for channels={channels}, classes={classes}, "
                        f"image_size={image_size} ({told}, in line {at.lineno} of {at.filename})."
                    ) from error
                if not isinstance(model, nn.Module):
                    raise ConfigError(
                        f"model.factory: {place} must return a torch.nn.Module, not {type(model).__name__}."
                    )
                return model

        return Built


def build_model(
    config: ModelConfig, *, channels: int, classes: int, image_size: tuple[int, int], seed: int
) -> nn.Module:
    """A net on the CPU, in train mode, for images [N, channels, *image_size] in [0, 1]; logits [N, classes].

    Its weights are a function of `seed` and the config; torch's global generator comes out as it went in.

    Raises:
        ConfigError: the factory of name=custom cannot be used.
    """
    model: Model = config.make()
    with torch.random.fork_rng(devices=[]):
        # the CPU generator alone: torch.manual_seed would also reset CUDA's, which is not forked
        torch.default_generator.manual_seed(seed_for(seed, "model"))
        return model.build(channels=channels, classes=classes, image_size=image_size)


def model_for(config: ModelConfig, images: ImageSet, seed: int) -> nn.Module:
    """`build_model` for the shape and the classes of `images`."""
    _, channels, height, width = images.images.shape
    return build_model(config, channels=channels, classes=images.classes, image_size=(height, width), seed=seed)


def check_model(config: ModelConfig, images: ImageSet, seed: int) -> nn.Module:
    """`model_for`, tried on two images.

    Raises:
        ConfigError: it cannot take them, or what comes out is no logits [2, classes].
    """
    model, named = model_for(config, images, seed), config.factory or config.name
    key = "model.factory" if config.factory else "model.name"
    x, _ = images.take(np.zeros(2, np.int64)).tensors()
    try:
        with torch.no_grad():
            found = list(model.eval()(x).shape)
    except Exception as error:  # of whatever the net is made of
        reason = " ".join(str(error).split()).rstrip(".")[:200]
        raise ConfigError(f"{key}: {named} cannot take images {list(x.shape)} ({reason}).") from error
    if found != (wanted := [2, images.classes]):
        raise ConfigError(f"{key}: {named} must give logits {wanted} for images {list(x.shape)}, not {found}.")
    return model.train()
