"""The screening of updates that a configuration asks for."""

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from fedmd.config import RunConfig, ScreeningConfig
from fedmd.defense.history import build_histories
from fedmd.defense.updates.limits import UpdateThreshold, fixed_threshold, robust_threshold
from fedmd.defense.updates.screen import UpdateScreen
from fedmd.training.burn_in import Weights
from fedmd.training.local import floating


def build_screen(
    config: RunConfig, net: nn.Module, trusted: tuple[Tensor, Tensor], snapshots: Sequence[Weights]
) -> UpdateScreen | None:
    """The screen for updates of `net`; None where that is not the defence.

    `trusted` are the server's images [n, C, H, W] and labels [n], `snapshots` the states after each epoch of burn-in.
    """
    if config.defense.name != "md_screen":
        return None
    return UpdateScreen(
        averaged_part(net),
        _probe(trusted, config.screening.probe),
        build_histories(config.history, [floating(snapshot) for snapshot in snapshots]),
        threshold=update_threshold(config.screening),
        loss_threshold=loss_threshold(config.screening),
        action=config.screening.action,
    )


def _probe(trusted: tuple[Tensor, Tensor], samples: int | None) -> list[tuple[Tensor, Tensor]]:
    """The first `samples` of the trusted set, in batches of images and labels."""
    x, y = (tensor[:samples] for tensor in trusted)
    return list(zip(torch.split(x, 256), torch.split(y, 256), strict=True))


def averaged_part(model: nn.Module) -> nn.Module:
    """A copy of `model` whose state dict holds what clients send: no counters of batches, nor other integer buffers."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            if not buffer.is_floating_point():
                module.register_buffer(name, buffer, persistent=False)
    return copied


def loss_threshold(config: ScreeningConfig) -> UpdateThreshold | None:
    """The limits of a round's losses on the probe, None where these are ignored: a low loss is no reason to act."""
    if config.loss == "ignored":
        return None
    return partial(robust_threshold, k=config.k, floor=config.floor, tails="upper")


def update_threshold(config: ScreeningConfig) -> UpdateThreshold:
    """The limits of a round's discrepancies."""
    if config.threshold == "fixed":
        return partial(fixed_threshold, upper=config.upper, lower=config.lower)
    return partial(robust_threshold, k=config.k, floor=config.floor, tails=config.tails)
