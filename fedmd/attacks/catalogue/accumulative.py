"""The accumulative attack of [AP21]: batches (or updates) that steer the model, then a trigger that bites.

mode=stream: eqs (1) to (3), see `fedmd.attacks.accumulative` and `fedmd.attacks.trigger`; mode=update: eq (4), see
`fedmd.attacks.accumulative_update`. One trigger batch, one validation set, one steering direction (or push) per model
version: each is computed once for the whole team.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedmd.attacks.accumulative import Variant, craft_accumulative, steering_direction
from fedmd.attacks.accumulative_update import accumulative_push, add_push, trigger_push
from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, Team
from fedmd.attacks.pixels import quantised
from fedmd.attacks.trigger_batch import TriggerParams, crafted_trigger, send_trigger, trigger_members
from fedmd.config import STREAM_ONLY, UPDATE_ONLY, NonNegative, Positive
from fedmd.registry import register_attack
from fedmd.types import ImageSet, Phase, StreamBatch


@register_attack("accumulative")
class Accumulative(Attack):
    """Accumulative poisons, then one trigger batch (Pang et al., NeurIPS 2021); in mode=update, pushes to updates."""

    label = "accumulative"
    needs_model = True

    class Params(TriggerParams, SeesUpdates):
        """Those of the trigger batch are for mode=stream."""

        gamma: Annotated[NonNegative, STREAM_ONLY] = Field(1.0, description="weight of staying useful, eq (3)")
        variant: Annotated[Variant, STREAM_ONLY] = Field("reg", description="reg | normal | second")
        scale: Annotated[NonNegative | None, UPDATE_ONLY] = Field(
            None, description="of what is added to the honest update; null: 1, the published rates"
        )
        norm_bound: Annotated[Positive | None, UPDATE_ONLY] = Field(
            1.0, description="in median norms of the updates seen; null: none"
        )

    params: Params

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's slice of the trigger batch; before, its own batch moved within the ball, eqs (2) and (3)."""
        if phase == "trigger":
            return send_trigger(team, self.params, batch, model)
        x, y = ImageSet(batch.images, batch.labels, team.own_data.classes).tensors(_device(model))
        poisoned = craft_accumulative(
            model,
            x,
            y,
            self._direction(team, batch.round, model),
            radius=self.params.radius,
            steps=self.params.steps,
            gamma=self.params.gamma,
            variant=self.params.variant,
        )
        return replace(batch, images=quantised(poisoned, batch.images, self.params.radius))

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """Δ + η · push, shortened to `norm_bound` median honest norms: eq (4)."""
        scale = 1.0 if self.params.scale is None else self.params.scale
        return add_push(known.own, self._push(team, known), known.honest, scale, self.params.norm_bound)

    def _direction(self, team: Team, round: int, model: nn.Module) -> tuple[Tensor, ...]:
        x_tri, y_tri = crafted_trigger(team, self.params, round, model)

        def steer() -> dict[str, Tensor]:
            h = steering_direction(model, x_tri, y_tri, *team.own_data.tensors(_device(model)))
            return {f"{index:04d}": tensor for index, tensor in enumerate(h)}

        shared = team.cache.once("direction", round, steer)
        return tuple(shared[name].to(_device(model)) for name in sorted(shared))

    def _push(self, team: Team, known: Knowledge) -> Tensor:
        """What is added in this round [d], the same for all colluders."""

        def push() -> dict[str, Tensor]:
            model = known.situation.model
            model.load_state_dict(known.situation.start)
            device = _device(model)
            x_tri, y_tri = _first_batches(team, self.params.trigger_samples).tensors(device)
            if known.phase == "trigger":
                return {"push": trigger_push(model, x_tri, y_tri)}
            return {"push": accumulative_push(model, x_tri, y_tri, *team.own_data.tensors(device))}

        return team.cache.once("push", known.situation.round, push)["push"].cpu()


def _first_batches(team: Team, most: int | None) -> ImageSet:
    """The trigger batch of mode=update, `most` samples at most: the first batches of its members' local data, clean."""
    size = team.config.local.batch_size
    own = [team.local.of(member) for member in trigger_members(team)]
    return ImageSet(
        np.concatenate([part.images[:size] for part in own])[:most],
        np.concatenate([part.labels[:size] for part in own])[:most],
        team.own_data.classes,
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
