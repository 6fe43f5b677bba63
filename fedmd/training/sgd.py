"""Stochastic gradient descent with momentum and weight decay, as PyTorch computes it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd


class Sgd:
    """`torch.optim.SGD` by its functional form: the same numbers, bit for bit.

    The class itself imports PyTorch's compiler with its first step, which takes every process two seconds.
    `momentum_buffers` has one a parameter, in their order; None before the first step and without momentum.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.0, weight_decay: float = 0.0
    ) -> None:
        self.parameters = list(parameters)
        self.momentum_buffers: list[Tensor | None] = [None] * len(self.parameters)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters that have a gradient: v <- momentum v + (g + weight_decay θ); θ <- θ - lr v."""
        learning = [place for place, parameter in enumerate(self.parameters) if parameter.grad is not None]
        gradients = [gradient for parameter in self.parameters if (gradient := parameter.grad) is not None]
        buffers = [self.momentum_buffers[place] for place in learning]
        sgd(
            [self.parameters[place] for place in learning],
            gradients,
            buffers,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for place, buffer in zip(learning, buffers, strict=True):
            self.momentum_buffers[place] = buffer
