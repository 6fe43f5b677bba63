"""The defence of mode=update; the mathematics are in `fedmd.defense.updates`."""

import copy
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmd.config import ConfigError, Mode, RunConfig, ScreeningConfig
from fedmd.defense.base import Defense
from fedmd.defense.history import State
from fedmd.defense.updates.canary import LEAST_IMAGES, CanaryWatch
from fedmd.defense.updates.limits import Past, UpdateThreshold, fixed_threshold, robust_threshold
from fedmd.defense.updates.screen import UpdateScreen
from fedmd.registry import register_defense
from fedmd.training.local import floating


@register_defense("discrepancy_screening", "md_screen")
class UpdateScreening(Defense):
    """Each client's model is held against its discrepancy, and loss, on the trusted set (extension); see screening."""

    modes: ClassVar[tuple[Mode, ...]] = ("update",)
    screens_updates = True

    @classmethod
    def shared_settings(cls, of_the_kind: Sequence[str]) -> Sequence[str]:
        """None: it sees no samples."""
        return ()

    def build_screen(
        self, run: RunConfig, net: nn.Module, trusted: tuple[Tensor, Tensor], snapshots: Sequence[State]
    ) -> UpdateScreen:
        """As the section `screening` says. Raises ConfigError where there are too few images for the canary."""
        config = run.screening
        x, y = (tensor[: config.probe] for tensor in trusted)
        if config.canary and len(x) < LEAST_IMAGES:
            raise ConfigError(
                f"screening.canary: needs {LEAST_IMAGES} trusted images at least, but screening.probe and "
                f"data.splits.trusted leave it {len(x)}."
            )
        return UpdateScreen(
            averaged_part(net),
            list(zip(torch.split(x, 256), torch.split(y, 256), strict=True)),
            run.history.make().build([floating(snapshot) for snapshot in snapshots]),
            threshold=update_threshold(config),
            loss_threshold=loss_threshold(config),
            past=past(config),
            canary=CanaryWatch(x, y, lr=run.local.lr) if config.canary else None,
            action=config.action,
        )


def averaged_part(model: nn.Module) -> nn.Module:
    """A copy of `model` whose state dict holds what clients send: no counters of batches, nor other integer buffers."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if not buffer.is_floating_point():
                module.register_buffer(name, buffer, persistent=False)
    return copied


def update_threshold(config: ScreeningConfig) -> UpdateThreshold:
    """The limits of a round's discrepancies."""
    if config.threshold == "fixed":
        return partial(fixed_threshold, upper=config.upper, lower=config.lower)
    return partial(robust_threshold, k=config.k, floor=config.floor, tails=config.tails)


def past(config: ScreeningConfig) -> Past | None:
    """The limits from earlier rounds; None where these are ignored, and where the limits are fixed anyway."""
    if config.past == "ignored" or config.threshold == "fixed":
        return None
    peers = None if config.past == "always" else 3
    return Past(quantile=config.past_quantile, factor=config.past_factor, peers=peers)


def loss_threshold(config: ScreeningConfig) -> UpdateThreshold | None:
    """The limits of a round's losses on the probe, None where these are ignored: a low loss is no reason to act."""
    if config.loss == "ignored":
        return None
    return partial(robust_threshold, k=config.k, floor=config.floor, tails="upper")
