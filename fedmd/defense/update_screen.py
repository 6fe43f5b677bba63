"""Measuring and correcting a round's updates with one net: what `DiscrepancyScreening` does besides talking Flower."""

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedmd.defense.update_discrepancy import State, largest_scale, load_between, probe_logits, update_discrepancy
from fedmd.defense.update_history import StateHistory
from fedmd.types import Action

Probe = Tensor | Iterable[Tensor] | Iterable[Sequence[Tensor]]


@dataclass(frozen=True)
class UpdateVerdict:
    """What became of one client's update in one round.

    `discrepancy` (nats) of the update as it arrived and `after` of what was handed on, both None where the reply was
    too broken to measure, `after` None too where nothing was handed on. `scale` in [0, 1] is the share of the update
    that was handed on (action "correct") or of its weight (action "weight"). `reason` is "" for an accepted update.
    `threshold` is the round's.
    """

    node: int
    discrepancy: float | None
    after: float | None
    scale: float
    action: Action
    reason: str
    threshold: float | None


class UpdateScreen:
    """One net that takes the shape of every candidate model in turn, and the round's historical answers.

    `model` is copied, so the caller's stays as it is; `probe` is read once: batches of images, or of (images, labels)
    whose labels are not looked at, or one tensor of images. Holds two states and one net, whatever the number of
    clients, beside what `history` holds.
    """

    def __init__(self, model: nn.Module, probe: Probe, history: StateHistory) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        device = next((tensor.device for tensor in self.model.state_dict().values()), None)
        self._probe = [x.to(device) for x in _images(probe)]
        if sum(len(x) for x in self._probe) == 0:
            raise ValueError("probe must have at least one sample")
        self._history = history
        self._current: State = {}
        self._historical_logits: Tensor | None = None

    def start_round(self, current: State) -> None:
        """Remember θ_t and what the historical model says to the probe."""
        self._current = current
        historical = self._history.observe(current)
        load_between(self.model, historical, historical, 0)
        self._historical_logits = probe_logits(self.model, self._probe)

    @property
    def started(self) -> bool:
        """Whether there is a round to measure updates in."""
        return self._historical_logits is not None

    def measure(self, received: State, scale: float = 1.0) -> float:
        """D(θ_t + scale · Δ), eq (10), in nats."""
        if self._historical_logits is None:
            raise RuntimeError("start_round must come before measure")
        load_between(self.model, self._current, received, scale)
        return update_discrepancy(self._historical_logits, self.model, self._probe)

    def correct(self, received: State, threshold: float) -> tuple[float, float]:
        """The largest scale whose discrepancy is at or below `threshold`, and that discrepancy; `model` holds it."""
        scale, after = largest_scale(lambda a: self.measure(received, a), threshold)
        load_between(self.model, self._current, received, scale)
        return scale, after


def _images(probe: Probe) -> list[Tensor]:
    if isinstance(probe, Tensor):
        return list(torch.split(probe, 256))
    return [batch if isinstance(batch, Tensor) else batch[0] for batch in probe]
