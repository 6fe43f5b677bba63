"""What both ends agree on: the net and the digits. Nothing of fedmd, and nothing new to anybody who has used Flower."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


def net() -> nn.Module:
    """A small convolutional net for 8x8 digits."""
    return nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10))


def digits(indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Images [n, 1, 8, 8] in [0, 1] and labels [n]."""
    every = load_digits()
    return torch.tensor(every.images[indices] / 16, dtype=torch.float32)[:, None], torch.tensor(every.target[indices])


def train(model: nn.Module, x: Tensor, y: Tensor, epochs: int) -> None:
    """Plain SGD in batches of 32."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
