"""Look at a model and hand it back exactly as it was found; how good it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 500) -> float:
    """Share of `x` [N, C, H, W] whose largest logit is at `y` [N], in eval mode; train/eval flags come back.

    Raises:
        ValueError: N is 0.
    """
    if len(x) == 0:
        raise ValueError("accuracy of no samples is undefined")
    hits = torch.zeros((), dtype=torch.int64, device=y.device)
    with evaluating(model):
        for images, labels in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            hits += (model(images).argmax(dim=1) == labels).sum()
    return hits.item() / len(x)


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put `models` in eval mode for the block; afterwards restore every submodule's own training flag.

    `model.train(was_training)` would not do: it overwrites a submodule that the owner holds in another mode
    than its parent (a frozen BatchNorm inside a training model). Flags come back also when the block raises.
    Models may share submodules. Not for a model that another thread is training at the same time: the flags
    are the model's own.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def batch_normalising(model: nn.Module) -> Iterator[None]:
    """Like `evaluating`, but batch-norm layers normalise by the batch at hand, as in training.

    A forward pass then moves their running statistics, unless copies are put in their place.
    """
    with evaluating(model):
        for module in model.modules():
            module.training = isinstance(module, _BatchNorm)
        yield
