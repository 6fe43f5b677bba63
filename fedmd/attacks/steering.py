"""The two moves of the accumulative attack, with what is expensive computed once for the whole team.

One trigger batch, one validation set, one steering direction per model version: each is a function of the run's
configuration, the data and the models the server published, and is shared through the blackboard.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from fedmd.attacks.accumulative import craft_accumulative, steering_direction
from fedmd.attacks.base import Team
from fedmd.attacks.pixels import quantised
from fedmd.attacks.schedule import planned_trigger_round
from fedmd.attacks.shared_cache import LASTING
from fedmd.attacks.trigger import craft_trigger
from fedmd.types import ImageSet, StreamBatch


def accumulate(team: Team, batch: StreamBatch, model: nn.Module) -> StreamBatch:
    """The member's own batch, moved within the ball so that a step on it prepares the trigger: eqs (2) and (3)."""
    attack = team.config.attack
    x, y = ImageSet(batch.images, batch.labels, team.own_data.classes).tensors(_device(model))
    poisoned = craft_accumulative(
        model,
        x,
        y,
        _direction(team, batch.round, model),
        radius=attack.radius,
        steps=attack.steps,
        gamma=attack.gamma,
        variant=attack.variant,
    )
    return replace(batch, images=quantised(poisoned, batch.images, attack.radius))


def send_trigger(team: Team, batch: StreamBatch, model: nn.Module) -> StreamBatch:
    """The member's slice of the common trigger batch, eq (1)."""
    crafted, _ = _trigger(team, batch.round, model)
    clean = _clean_trigger(team)
    size = team.config.stream.batch_size
    start = team.members.index(batch.client) * size
    mine = slice(start, start + size)
    images = quantised(crafted[mine], clean.images[mine], team.config.attack.radius)
    return replace(batch, images=images, labels=clean.labels[mine])


def _trigger(team: Team, round: int, model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The crafted trigger batch [M * b, C, H, W] and its labels; always inside the ball round the clean one."""
    x, y = _clean_trigger(team).tensors(_device(model))
    attack = team.config.attack

    def craft() -> dict[str, torch.Tensor]:
        x_val, y_val = team.own_data.tensors(_device(model))
        return {"x": craft_trigger(model, x, y, x_val, y_val, radius=attack.radius, steps=attack.steps)}

    version = round if attack.trigger == "online" else LASTING
    return team.blackboard.once("trigger", version, craft)["x"].to(_device(model)), y


def _clean_trigger(team: Team) -> ImageSet:
    """The batches the members would have sent in the planned trigger round, in the order of their ids."""
    planned = planned_trigger_round(team.config.stream)
    batches = [team.streams.batch(client, planned) for client in team.members]
    return ImageSet(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
        team.own_data.classes,
    )


def _direction(team: Team, round: int, model: nn.Module) -> tuple[torch.Tensor, ...]:
    x_tri, y_tri = _trigger(team, round, model)

    def steer() -> dict[str, torch.Tensor]:
        h = steering_direction(model, x_tri, y_tri, *team.own_data.tensors(_device(model)))
        return {f"{index:04d}": tensor for index, tensor in enumerate(h)}

    shared = team.blackboard.once("direction", round, steer)
    return tuple(shared[name].to(_device(model)) for name in sorted(shared))


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
