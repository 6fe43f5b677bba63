"""Random crops and flips for burn-in (and the published stream, which replays it)."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

PADDING = 4


def augment(images: Tensor, kind: Literal["none", "crop", "crop_flip"], generator: torch.Generator) -> Tensor:
    """A new batch [N, C, H, W], each image moved by itself; any dtype, `images` is left alone.

    crop: 4 black (zero) pixels on every side, then a random H x W window (He et al., CVPR 2016, section 4.2).
    crop_flip: also mirrored left to right with probability 1/2.
    `generator` lives on the CPU, so a seed means the same on every device.
    """
    if kind == "none" or len(images) == 0:
        return images.clone()
    n, channels, height, width = images.shape
    offsets = torch.randint(0, 2 * PADDING + 1, (2, n, 1), generator=generator)
    rows = offsets[0] + torch.arange(height)  # [N, H]
    columns = offsets[1] + torch.arange(width)  # [N, W]
    if kind == "crop_flip":
        mirrored = torch.rand(n, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    padded = pad(images, (PADDING,) * 4)
    rows, columns = rows.to(images.device), columns.to(images.device)
    sample = torch.arange(n, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[None, :, None, None]
    return padded[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]
