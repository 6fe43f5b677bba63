"""The historical model θ_h that Memorization Discrepancy (5) compares with. Memory is bounded by construction.

The direction of the effect depends on this choice (an early snapshot and a short lag can disagree on which samples
look strange), so it is a setting of its own.
"""

import copy
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fedmd.config import HistoryConfig
from fedmd.storage import Saved

State = dict[str, Tensor]


class History(Protocol):
    """`model` is today's historical model; `observe` is told the current one after every online step.

    `restore` puts back what `state` returned, in a history that was made like the one that was asked.
    """

    @property
    def model(self) -> nn.Module: ...

    def observe(self, current: nn.Module) -> None: ...

    def state(self) -> Saved: ...

    def restore(self, saved: Saved) -> None: ...


class SnapshotHistory:
    """A snapshot of burn-in that never moves (the published choice: epoch 20 of 40). Holds one model."""

    def __init__(self, snapshot: nn.Module) -> None:
        self.model = _frozen(snapshot)

    def observe(self, current: nn.Module) -> None:
        """Nothing: the snapshot stays."""

    def state(self) -> Saved:
        """Nothing: burn-in repeats bit for bit, and a checkpoint knows which one it was."""
        return {}

    def restore(self, saved: Saved) -> None:
        """Nothing to put back."""


class LagHistory:
    """The model of `lag` online steps ago; the first one seen until there are so many. Holds lag + 2 models."""

    def __init__(self, current: nn.Module, lag: int) -> None:
        self.model = _frozen(current)
        self._states: deque[State] = deque([_copy_state(current)], maxlen=lag + 1)

    def observe(self, current: nn.Module) -> None:
        """Remember the model after one more online step."""
        self._states.append(_copy_state(current))
        self.model.load_state_dict(self._states[0])

    def state(self) -> Saved:
        """The models since then, oldest first."""
        return {"states": list(self._states)}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        device = next(self.model.parameters()).device
        states = [{name: tensor.to(device, copy=True) for name, tensor in each.items()} for each in saved["states"]]
        self._states = deque(states, maxlen=self._states.maxlen)
        self.model.load_state_dict(self._states[0])


class EmaHistory:
    """average <- decay * average + (1 - decay) * current after every step, buffers included. Holds one model."""

    def __init__(self, current: nn.Module, decay: float) -> None:
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(current, multi_avg_fn=average, use_buffers=True)
        self._average.update_parameters(current)  # the first update copies: the average starts at `current`
        self.model = self._average.module.requires_grad_(False).eval()

    def observe(self, current: nn.Module) -> None:
        """Move the average towards the model after one more online step."""
        self._average.update_parameters(current)

    def state(self) -> Saved:
        """The average, and of how many models it is."""
        return {"average": self._average.state_dict()}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        self._average.load_state_dict(saved["average"])


def build_history(config: HistoryConfig, current: nn.Module, snapshots: Sequence[State]) -> History:
    """The history a configuration asks for.

    `snapshots` are the states after each epoch of burn-in, `current` the model at its end.
    """
    if config.name == "lag":
        return LagHistory(current, config.lag)
    if config.name == "ema":
        return EmaHistory(current, config.decay)
    snapshot = copy.deepcopy(current)
    snapshot.load_state_dict(snapshots[config.epoch - 1])
    return SnapshotHistory(snapshot)


def _frozen(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False).eval()


def _copy_state(model: nn.Module) -> State:
    with torch.no_grad():
        return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
