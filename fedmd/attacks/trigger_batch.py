"""The trigger batch of the accumulative attack as the colluders share it: crafted once, sent in slices.

It is a function of the run's configuration, the data and the models the server published. It is as large as what the
members asked in the planned trigger round can send, not as what all of them could: among many clients few are asked.
"""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from fedmd.attacks.adaptive_samples import Restraint, sent
from fedmd.attacks.base import Team
from fedmd.attacks.schedule import planned_trigger_round
from fedmd.attacks.shared_cache import LASTING
from fedmd.attacks.trigger import craft_trigger
from fedmd.config import STREAM_ONLY, Count, Section, Share
from fedmd.types import ImageSet, StreamBatch

Trigger = Literal["fixed", "online", "clean", "reversed"]  # the first two are for mode=stream, the others for update


class TriggerParams(Section):
    """How the trigger batch is crafted."""

    radius: Annotated[Share, STREAM_ONLY] = Field(
        0.3, description="l-inf distance a sample may move, in units of [0, 1]"
    )
    steps: Annotated[Count, STREAM_ONLY] = Field(2, description="PGD steps of size 2 * radius / steps")
    trigger: Trigger | None = Field(
        None,
        description="fixed: crafted once, at the attack's start; online: crafted anew every round; mode=update: "
        "reversed, ascent; clean, an ordinary step. null: fixed, or reversed",
    )
    trigger_samples: Count | None = Field(
        None,
        description="size of the common trigger batch, at most; null: what those asked in its round can send. "
        "trigger=clean: of the attackers' own data; null: a third of it",
    )


def send_trigger(
    team: Team, params: TriggerParams, batch: StreamBatch, model: nn.Module, restraint: Restraint | None = None
) -> StreamBatch:
    """The member's slice of the common trigger batch, eq (1).

    It goes by the member's place among those asked in the round, and begins again where there are more of them than
    the batch is long. With a ``restraint``, eq (11), it is held below the limit of the round in which it is sent.
    """
    crafted = _crafted(team, params, batch.round, model, restraint)
    size = team.config.stream.batch_size
    start = team.asked(batch.round).index(batch.client) * size
    mine = torch.arange(start, start + size) % len(crafted["y"])
    labels = crafted["y"][mine].numpy()
    images = sent(crafted["x"][mine], crafted["clean"][mine].numpy(), labels, params.radius, restraint)
    return replace(batch, images=images, labels=labels)


def crafted_trigger(
    team: Team, params: TriggerParams, round: int, model: nn.Module, restraint: Restraint | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The crafted trigger batch [T, C, H, W] and its labels; always inside the ball round the clean one."""
    crafted, device = _crafted(team, params, round, model, restraint), next(model.parameters()).device
    return crafted["x"].to(device), crafted["y"].to(device)


def _crafted(
    team: Team, params: TriggerParams, round: int, model: nn.Module, restraint: Restraint | None
) -> dict[str, torch.Tensor]:
    """The batch as the colluders share it: `x`, its labels `y`, and the `clean` bytes that it was crafted from."""

    def craft() -> dict[str, torch.Tensor]:
        device, clean = next(model.parameters()).device, _clean_trigger(team, params)
        x = craft_trigger(
            model,
            *clean.tensors(device),
            *team.own_data.tensors(device),
            radius=params.radius,
            steps=params.steps,
            restraint=restraint,
        )
        return {"x": x.cpu(), "y": torch.from_numpy(clean.labels), "clean": torch.from_numpy(clean.images)}

    return team.cache.once("trigger", round if params.trigger == "online" else LASTING, craft)


def trigger_members(team: Team) -> tuple[int, ...]:
    """Whose data make the trigger batch: the members asked in the planned trigger round; one where none is."""
    return team.asked(planned_trigger_round(team.config.stream)) or team.members[:1]


def _clean_trigger(team: Team, params: TriggerParams) -> ImageSet:
    """The batches those members would have sent in the planned trigger round, one after another."""
    planned = planned_trigger_round(team.config.stream)
    batches = [team.streams.batch(client, planned) for client in trigger_members(team)]
    return ImageSet(
        np.concatenate([batch.images for batch in batches])[: params.trigger_samples],
        np.concatenate([batch.labels for batch in batches])[: params.trigger_samples],
        team.own_data.classes,
    )
