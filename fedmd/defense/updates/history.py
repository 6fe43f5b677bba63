"""The historical model θ_h that updates are compared with, as state dicts; the choices of `history.py`, by the round.

`observe` is told the global model at the start of every round and returns what that round compares with. What is
kept is cloned: a caller may overwrite its tensors afterwards.
"""

from collections import deque
from typing import Protocol

import torch
from torch import Tensor

from fedmd.defense.updates.discrepancy import State
from fedmd.storage import Saved


class StateHistory(Protocol):
    """Fed with one state a round, in order. `restore` puts back what `state` returned."""

    def observe(self, current: State) -> State: ...

    def state(self) -> Saved: ...

    def restore(self, saved: Saved) -> None: ...


class StateLag:
    """The global model of `lag` rounds ago; the oldest there is until there are so many. Holds lag + 1 states.

    With lag 0 the history is the current model itself, and D says how far one update alone moves it.
    """

    def __init__(self, lag: int = 1) -> None:
        if lag < 0:
            raise ValueError(f"lag must be an integer >= 0, got {lag}")
        self._states: deque[State] = deque(maxlen=lag + 1)

    def observe(self, current: State) -> State:
        """Remember this round's model; the one of `lag` rounds ago."""
        self._states.append(_copy(current))
        return self._states[0]

    def state(self) -> Saved:
        """What it holds, oldest first."""
        return {"states": list(self._states)}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        self._states = deque(map(_copy, saved["states"]), maxlen=self._states.maxlen)


class StateEma:
    """average <- decay * average + (1 - decay) * current, every round, buffers included; integers are copied."""

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self._decay = decay
        self._average: dict[str, Tensor] = {}

    @torch.no_grad()
    def observe(self, current: State) -> State:
        """Move the average towards this round's model; the average."""
        if not self._average:
            self._average = _copy(current)
        for name, average in self._average.items():
            if average.is_floating_point():
                average.lerp_(current[name].to(average), 1 - self._decay)
            else:
                average.copy_(current[name])
        return self._average

    def state(self) -> Saved:
        """The average; empty before the first round."""
        return {"average": self._average}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        self._average = _copy(saved["average"])


class StateSnapshot:
    """A model that never moves: `snapshot`, or the first one observed."""

    def __init__(self, snapshot: State | None = None) -> None:
        self._snapshot = None if snapshot is None else _copy(snapshot)

    def observe(self, current: State) -> State:
        """The snapshot stays."""
        if self._snapshot is None:
            self._snapshot = _copy(current)
        return self._snapshot

    def state(self) -> Saved:
        """The snapshot; None before the first round, where it is the first model observed."""
        return {"snapshot": self._snapshot}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        self._snapshot = None if saved["snapshot"] is None else _copy(saved["snapshot"])


def _copy(state: State) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in state.items()}
