"""How good a model is, without touching it."""

import torch
from torch import Tensor, nn

from fedmd.training.mode import evaluating


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
