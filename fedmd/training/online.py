"""The server's online learning: one SGD step on the batch of a round."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from fedmd.config import OnlineConfig
from fedmd.training.device import FLOAT32, Placement
from fedmd.training.sgd import Sgd


def make_optimizer(model: nn.Module, config: OnlineConfig) -> Sgd:
    """A fresh SGD (momentum, no weight decay): nothing is carried over from burn-in, as in [AP21]'s code."""
    return Sgd(model.parameters(), lr=config.lr, momentum=config.momentum)


def set_momentum(optimizer: Sgd, buffers: Sequence[Tensor | None]) -> None:
    """Put back what were its `momentum_buffers`; copies."""
    optimizer.momentum_buffers = [
        None if buffer is None else torch.empty_like(parameter).copy_(buffer).detach()
        for parameter, buffer in zip(optimizer.parameters, buffers, strict=True)
    ]


def online_step(
    model: nn.Module,
    optimizer: Sgd | torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    *,
    batchnorm: Literal["train", "frozen"] = "train",
    clip_norm: float | None = None,
    placement: Placement = FLOAT32,
) -> float | None:
    """θ <- θ - SGD(∇_θ CE), CE the batch-mean cross-entropy of `x` [N, C, H, W] and `y` [N] in train mode.

    Leaves the model in that mode. With batchnorm="frozen" the batch-norm layers use their running statistics
    and keep them (their weights still learn); so it is for a batch of one sample, which has no variance. With
    `clip_norm` a gradient of a larger L2 norm, over all parameters together, is scaled down to it before momentum.

    Returns:
        The loss before the step, or None for an empty batch, on which no step is made.
    """
    if len(x) == 0:
        return None
    model.train()
    if batchnorm == "frozen" or len(x) == 1:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    optimizer.zero_grad()
    with placement.autocast():
        loss = cross_entropy(model(x), y)
    torch.autograd.backward(loss)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()
