"""From crafted samples to the bytes that travel."""

import numpy as np
import torch
from numpy.typing import NDArray


def quantised(x: torch.Tensor, clean: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """`x` [n, C, H, W] in [0, 1] as bytes that stay inside the ball of `radius` round the `clean` bytes."""
    limit = int(np.floor(radius * 255 + 1e-6))
    levels = np.rint(x.cpu().numpy() * 255).astype(np.int64)
    start = clean.astype(np.int64)
    inside: NDArray[np.int64] = np.clip(np.clip(levels, start - limit, start + limit), 0, 255)
    return inside.astype(np.uint8)
