"""A net of the user's own: model.factory="package.module:function"."""

import importlib

from torch import nn

from fedmd.config import ConfigError, ModelConfig


def custom(config: ModelConfig, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    """What the factory returns, called with `channels=`, `classes=`, `image_size=(height, width)`.

    Used as it is: it gets images in [0, 1], and normalises them itself if it wants to (`Normalise`).

    Raises:
        ConfigError: the factory cannot be found, refuses the arguments or returns no `torch.nn.Module`.
    """
    module_name, colon, function_name = (config.factory or "").partition(":")
    if not (module_name and colon and function_name):
        raise ConfigError(
            f'model.factory: must be "package.module:function" for model.name=custom, not {config.factory!r}.'
        )
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except ImportError as error:
        raise ConfigError(f"model.factory: cannot import {module_name} ({error}).") from error
    except AttributeError as error:
        raise ConfigError(f"model.factory: {module_name} has no {function_name}.") from error
    try:
        model = factory(channels=channels, classes=classes, image_size=image_size)
    except TypeError as error:
        raise ConfigError(
            f"model.factory: {config.factory} must take channels=, classes= and image_size= ({error})."
        ) from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model.factory: {config.factory} must return a torch.nn.Module, not {type(model).__name__}.")
    return model
