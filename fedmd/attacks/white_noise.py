"""Noise in update space, measured in honest updates."""

import math

import torch
from torch import Tensor


def white_noise(honest: Tensor, factor: float, generator: torch.Generator) -> Tensor:
    """N(0, σ² I) [d] with σ = ``factor`` times the root mean square of the honest updates' [n, d] coordinates.

    So its length is about ``factor`` honest updates. Drawn on the CPU: the same on every device.
    """
    rms = float(torch.linalg.vector_norm(honest)) / math.sqrt(honest.numel())
    draw = torch.randn(honest.shape[1:], generator=generator, dtype=torch.float32)
    return (factor * rms) * draw.to(honest)
