"""The colluders' common mind: one trigger batch, one validation set, one steering direction per model version.

Everything here is a function of the run's configuration, the data and the models the server published; what is
expensive is computed once and shared through the blackboard.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedmd.attacks.accumulative import craft_accumulative, steering_direction
from fedmd.attacks.blackboard import Blackboard
from fedmd.attacks.roster import malicious_clients, phase_of, planned_trigger_round
from fedmd.attacks.trigger import craft_trigger
from fedmd.config import RunConfig
from fedmd.data.stream import ClientStreams
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet, Phase, StreamBatch


def quantised(x: torch.Tensor, clean: NDArray[np.uint8], radius: float) -> NDArray[np.uint8]:
    """`x` [n, C, H, W] in [0, 1] as bytes that stay inside the ball of `radius` round the `clean` bytes."""
    limit = int(np.floor(radius * 255 + 1e-6))
    levels = np.rint(x.cpu().numpy() * 255).astype(np.int64)
    start = clean.astype(np.int64)
    inside: NDArray[np.int64] = np.clip(np.clip(levels, start - limit, start + limit), 0, 255)
    return inside.astype(np.uint8)


class Coalition:
    """The malicious clients of one run. Raises nothing of its own; kernels validate their arguments."""

    def __init__(self, config: RunConfig, streams: ClientStreams, own_data: ImageSet, blackboard: Blackboard) -> None:
        self._config = config
        self._streams = streams
        self._own_data = own_data  # the attackers' validation data: no other part of the run sees it
        self.blackboard = blackboard
        fraction = config.attack.fraction if config.attack.name != "none" else 0.0
        self.members = malicious_clients(config.federation.clients, fraction, config.seed)

    def poison(self, batch: StreamBatch, model: nn.Module) -> StreamBatch:
        """What a member sends instead of its honest `batch`, knowing the server's current `model`."""
        phase = self._decide_phase(batch.round, model)
        if phase == "accumulative":
            return self._accumulative(batch, model)
        if phase == "trigger":
            return self._trigger_slice(batch, model)
        return batch

    def phase(self, round: int) -> Phase:
        """The phase of `round` as far as the members have decided it."""
        triggered_at = self.blackboard.announced("trigger_round")
        return phase_of(self._config.stream, round, None if triggered_at is None else int(triggered_at))

    def is_active(self, round: int) -> bool:
        """Whether members poison in `round`."""
        return bool(self.members) and self.phase(round) in ("accumulative", "trigger")

    def _decide_phase(self, round: int, model: nn.Module) -> Phase:
        """Members stop accumulating once their own estimate of the error has risen enough."""
        phase = self.phase(round)
        rise = self._config.attack.stop_error_rise
        if phase != "accumulative" or rise is None:
            return phase
        error = 1 - accuracy(model, *self._own_data.tensors(_device(model)))
        self.blackboard.announce("error_at_start", error)
        at_start = self.blackboard.announced("error_at_start")
        if at_start is not None and error - at_start >= rise:
            self.blackboard.announce("trigger_round", round)
        return self.phase(round)

    def _trigger(self, round: int, model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """The crafted trigger batch [M * b, C, H, W] and its labels; always inside the ball round the clean one."""
        x, y = self._clean_trigger().tensors(_device(model))
        attack = self._config.attack

        def craft() -> dict[str, torch.Tensor]:
            x_val, y_val = self._own_data.tensors(_device(model))
            return {"x": craft_trigger(model, x, y, x_val, y_val, radius=attack.radius, steps=attack.steps)}

        version = round if attack.trigger == "online" else 0
        return self.blackboard.once("trigger", version, craft)["x"].to(_device(model)), y

    def _clean_trigger(self) -> ImageSet:
        """The batches the members would have sent in the planned trigger round, in the order of their ids."""
        planned = planned_trigger_round(self._config.stream)
        batches = [self._streams.batch(client, planned) for client in self.members]
        return ImageSet(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            self._own_data.classes,
        )

    def _direction(self, round: int, model: nn.Module) -> tuple[torch.Tensor, ...]:
        x_tri, y_tri = self._trigger(round, model)

        def steer() -> dict[str, torch.Tensor]:
            h = steering_direction(model, x_tri, y_tri, *self._own_data.tensors(_device(model)))
            return {f"{index:04d}": tensor for index, tensor in enumerate(h)}

        shared = self.blackboard.once("direction", round, steer)
        return tuple(shared[name].to(_device(model)) for name in sorted(shared))

    def _accumulative(self, batch: StreamBatch, model: nn.Module) -> StreamBatch:
        attack = self._config.attack
        x, y = ImageSet(batch.images, batch.labels, self._own_data.classes).tensors(_device(model))
        poisoned = craft_accumulative(
            model,
            x,
            y,
            self._direction(batch.round, model),
            radius=attack.radius,
            steps=attack.steps,
            gamma=attack.gamma,
            variant=attack.variant,
        )
        return replace(batch, images=quantised(poisoned, batch.images, attack.radius))

    def _trigger_slice(self, batch: StreamBatch, model: nn.Module) -> StreamBatch:
        crafted, _ = self._trigger(batch.round, model)
        clean = self._clean_trigger()
        size = self._config.stream.batch_size
        start = self.members.index(batch.client) * size
        mine = slice(start, start + size)
        images = quantised(crafted[mine], clean.images[mine], self._config.attack.radius)
        return replace(batch, images=images, labels=clean.labels[mine])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
