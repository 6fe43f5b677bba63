"""Uniform random noise in the ball that the crafted attacks use: the control that tells craft from mere distance."""

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from fedmd.attacks.base import Attack, Team
from fedmd.attacks.pixels import quantised
from fedmd.config import Section, Share
from fedmd.registry import register_attack
from fedmd.seeding import generator
from fedmd.types import ImageSet, Phase, StreamBatch


def add_noise(x: Tensor, radius: float, randomness: torch.Generator) -> Tensor:
    """`x` [n, C, H, W] in [0, 1] plus independent noise, uniform on [−radius, radius], clipped to [0, 1]."""
    noise = torch.rand(x.shape, generator=randomness, dtype=x.dtype).to(x.device)
    return (x + radius * (2 * noise - 1)).clamp(0, 1)


@register_attack("noise")
class Noise(Attack):
    """Control: uniform random noise as far as the crafted attacks may go."""

    modes = ("stream",)

    class Params(Section):
        """How far."""

        radius: Share = Field(0.3, description="l-inf distance a sample may move, in units of [0, 1]")

    params: Params

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's batch under noise of `radius`, its labels as they are."""
        radius = self.params.radius
        x, _ = ImageSet(batch.images, batch.labels, team.own_data.classes).tensors()
        noisy = add_noise(x, radius, generator(team.config.seed, "noise", batch.client, batch.round))
        return replace(batch, images=quantised(noisy, batch.images, radius))
