"""Input normalisation as the first layer, so that attacks and defences speak of pixels in [0, 1]."""

import torch
from torch import Tensor, nn

# channels -> per-channel mean and standard deviation of the set the field normalises with
STATISTICS: dict[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    1: ((0.1307,), (0.3081,)),  # MNIST
    3: ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),  # CIFAR-10
}


class Normalise(nn.Module):
    """(x - mean) / std per channel; 0.5 and 0.5 where the channel count has no usual values.

    The two are constants: buffers that follow the device, but no part of the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        mean, std = STATISTICS.get(channels, ((0.5,) * channels, (0.5,) * channels))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [N, C, H, W] in [0, 1], normalised."""
        return (x - self.mean) / self.std
