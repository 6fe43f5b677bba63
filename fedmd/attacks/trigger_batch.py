"""The trigger batch of the accumulative attack as the colluders share it: crafted once, sent in slices.

It is a function of the run's configuration, the data and the models the server published.
"""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from fedmd.attacks.base import Team
from fedmd.attacks.pixels import quantised
from fedmd.attacks.schedule import planned_trigger_round
from fedmd.attacks.shared_cache import LASTING
from fedmd.attacks.trigger import craft_trigger
from fedmd.config import STREAM_ONLY, Count, Section, Share
from fedmd.types import ImageSet, StreamBatch


class TriggerParams(Section):
    """How the trigger batch is crafted."""

    radius: Annotated[Share, STREAM_ONLY] = Field(
        0.3, description="l-inf distance a sample may move, in units of [0, 1]"
    )
    steps: Annotated[Count, STREAM_ONLY] = Field(2, description="PGD steps of size 2 * radius / steps")
    trigger: Annotated[Literal["fixed", "online"], STREAM_ONLY] = Field(
        "fixed", description="fixed: crafted once, at the attack's start; online: crafted anew every round"
    )


def send_trigger(team: Team, params: TriggerParams, batch: StreamBatch, model: nn.Module) -> StreamBatch:
    """The member's slice of the common trigger batch, eq (1)."""
    crafted, _ = crafted_trigger(team, params, batch.round, model)
    clean = _clean_trigger(team)
    size = team.config.stream.batch_size
    start = team.members.index(batch.client) * size
    mine = slice(start, start + size)
    images = quantised(crafted[mine], clean.images[mine], params.radius)
    return replace(batch, images=images, labels=clean.labels[mine])


def crafted_trigger(
    team: Team, params: TriggerParams, round: int, model: nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    """The crafted trigger batch [M * b, C, H, W] and its labels; always inside the ball round the clean one."""
    device = next(model.parameters()).device
    x, y = _clean_trigger(team).tensors(device)

    def craft() -> dict[str, torch.Tensor]:
        x_val, y_val = team.own_data.tensors(device)
        return {"x": craft_trigger(model, x, y, x_val, y_val, radius=params.radius, steps=params.steps)}

    version = round if params.trigger == "online" else LASTING
    return team.cache.once("trigger", version, craft)["x"].to(device), y


def _clean_trigger(team: Team) -> ImageSet:
    """The batches the members would have sent in the planned trigger round, in the order of their ids."""
    planned = planned_trigger_round(team.config.stream)
    batches = [team.streams.batch(client, planned) for client in team.members]
    return ImageSet(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        team.own_data.classes,
    )
