"""The server's online learning: one SGD step on the batch of a round."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
    batchnorm: Literal["train", "frozen", "median"] = "train",
    clip_norm: float | None = None,
    placement: Placement = FLOAT32,
) -> float | None:
    """θ <- θ - SGD(∇_θ CE), CE the batch-mean cross-entropy of `x` [N, C, H, W] and `y` [N] in train mode.

    Leaves the model in that mode. With batchnorm="frozen" the batch-norm layers use their running statistics
    and keep them (their weights still learn); so it is for a batch of one sample, which has no variance. With
    batchnorm="median" they use, and their running statistics follow, `median_statistics` of the batch. With
    `clip_norm` a gradient of a larger L2 norm, over all parameters together, is scaled down to it before momentum.

    Returns:
        The loss before the step, or None for an empty batch, on which no step is made.
    """
    if len(x) == 0:
        return None
    model.train()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if batchnorm != "train" or len(x) == 1:
        for norm in norms:
            norm.eval()
    optimizer.zero_grad()
    with placement.autocast(), _median_normalising(norms if batchnorm == "median" and len(x) > 1 else ()):
        loss = cross_entropy(model(x), y)
    torch.autograd.backward(loss)
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return loss.item()


def median_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance [C] of each channel of `x` [N, C, ...], as medians over the samples.

        m_c = med_n mean_s x_ncs        v_c = med_n mean_s (x_ncs - m_c)²        s over the positions of a channel

    After MedBN (Park et al., CVPR 2024, arXiv 2403.19326), which puts the median in the place of the batch's mean;
    over samples it is no sample's, nor any minority's, to move far. Of an even number of samples the lower median.
    """
    flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
    mean = flat.mean(dim=2).median(dim=0).values
    away = flat - mean[:, None]
    return mean, (away * away).mean(dim=2).median(dim=0).values


@contextmanager
def _median_normalising(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """These layers, which are in eval mode, normalise by `median_statistics`, and their running statistics follow."""

    def normalise(norm: _BatchNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = inputs
        mean, variance = median_statistics(x)
        if norm.running_mean is not None and norm.running_var is not None:
            weight = 0.1 if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(mean.detach().to(norm.running_mean), weight)
            norm.running_var.lerp_(variance.detach().to(norm.running_var), weight)
        shape = (1, -1, *[1] * (x.dim() - 2))
        normal = (x - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
        return normal if norm.weight is None else normal * norm.weight.view(shape) + norm.bias.view(shape)

    hooks = [norm.register_forward_hook(normalise) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
