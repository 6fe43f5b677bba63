"""The historical model θ_h that discrepancies (5) and (10) compare with, as state dicts.

The direction of the effect depends on this choice (an early snapshot and a short lag can disagree on which samples
look strange), so it is a setting of its own. Memory is bounded by construction. What is kept is cloned: a caller may
overwrite its tensors afterwards.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor

from fedmd.config import ConfigError, Count, Mode, Section
from fedmd.registry import Plugin, register_history
from fedmd.storage import Saved

State = Mapping[str, Tensor]


class History(Protocol):
    """Told every version of the current model once, in order, it says which earlier one is today's historical model.

    `state` is another object whenever it has changed, so that `is` tells. `restore` puts back what `save` returned, in
    a history that was made like the one that was asked.
    """

    @property
    def state(self) -> State:
        """Today's historical model."""

    def observe(self, current: State) -> None:
        """Take note of the next version of the current model."""

    def save(self) -> Saved:
        """What `restore` needs to go on from here."""

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""


class Snapshot:
    """A model that never moves: `snapshot`, the published choice (epoch 20 of 40), or the first one observed."""

    def __init__(self, snapshot: State | None = None) -> None:
        self._given = snapshot is not None
        self.state: State = {} if snapshot is None else _copy(snapshot)

    def observe(self, current: State) -> None:
        """Take the first model where none was given; the snapshot stays."""
        if not self.state:
            self.state = _copy(current)

    def save(self) -> Saved:
        """The first model observed. One that was given is its owner's: burn-in repeats bit for bit."""
        return {} if self._given else {"snapshot": dict(self.state)}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        if not self._given:
            self.state = _copy(saved["snapshot"])


class Lag:
    """The model of `lag` versions ago; the oldest there is until there are so many. Holds lag + 1 states.

    With lag 0 the history is the current model itself, and (10) says how far one update alone moves it.
    """

    def __init__(self, lag: int = 1) -> None:
        if lag < 0:
            raise ValueError(f"lag must be an integer >= 0, got {lag}")
        self._states: deque[dict[str, Tensor]] = deque(maxlen=lag + 1)

    @property
    def state(self) -> State:
        """The oldest of the states it holds."""
        return self._states[0] if self._states else {}

    def observe(self, current: State) -> None:
        """Remember one more version."""
        self._states.append(_copy(current))

    def save(self) -> Saved:
        """The states it holds, oldest first."""
        return {"states": list(self._states)}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self._states = deque([_copy(state, self.state) for state in saved["states"]], maxlen=self._states.maxlen)


class Ema:
    """average <- decay * average + (1 - decay) * current, buffers included; integers are copied. Holds one state."""

    def __init__(self, decay: float = 0.9) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be between 0 and 1, got {decay}")
        self._decay = decay
        self.state: State = {}

    @torch.no_grad()
    def observe(self, current: State) -> None:
        """Move the average towards one more version; the first one is where it starts."""
        if not self.state:
            self.state = _copy(current)
            return
        for name, average in self.state.items():
            if average.is_floating_point():
                average.lerp_(current[name].to(average), 1 - self._decay)
            else:
                average.copy_(current[name])
        self.state = dict(self.state)  # another object: it has changed

    def save(self) -> Saved:
        """The average; empty before the first version."""
        return {"average": dict(self.state)}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self.state = _copy(saved["average"], self.state)


class HistoryPlugin(Plugin):
    """A choice of historical models; it makes `History` objects, which the current model is shown to."""

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs of burn-in, from 1, whose models it is made of."""
        return ()

    def build(self, snapshots: Sequence[State]) -> tuple[History, ...]:
        """One history, of mode=update perhaps several; `snapshots` are the states after each epoch of burn-in."""
        raise NotImplementedError


@register_history("snapshot")
class SnapshotHistory(HistoryPlugin):
    """The model after this epoch of burn-in, for good."""

    class Params(Section):
        """Which one."""

        epoch: Count = Field(1, description="of burn-in")

    params: Params

    @classmethod
    def check_run(cls, params: Params, run: Any) -> None:
        """There must be such an epoch."""
        epochs = run.training.burn_in.epochs
        if params.epoch > epochs:
            raise ValueError(
                f"history.epoch must be between 1 and training.burn_in.epochs={epochs}, not {params.epoch}"
            )

    @property
    def epochs(self) -> tuple[int, ...]:
        """The one."""
        return (self.params.epoch,)

    def build(self, snapshots: Sequence[State]) -> tuple[History, ...]:
        """That snapshot. Raises ConfigError where there are too few."""
        if self.params.epoch > len(snapshots):
            raise ConfigError(f"history.epoch: must be at most {len(snapshots)}, the number of snapshots there are.")
        return (Snapshot(snapshots[self.params.epoch - 1]),)


@register_history("lag")
class LagHistory(HistoryPlugin):
    """The model of `lag` online steps or rounds ago (the end of burn-in until then)."""

    class Params(Section):
        """How long ago."""

        lag: Count = 10

    params: Params

    def build(self, snapshots: Sequence[State]) -> tuple[History, ...]:
        """One that lags."""
        return (Lag(self.params.lag),)


@register_history("ema")
class EmaHistory(HistoryPlugin):
    """Exponential moving average of the weights: decay * average + (1 - decay) * current (extension)."""

    class Params(Section):
        """How slowly it moves."""

        decay: Annotated[float, Field(gt=0, lt=1)] = Field(0.95, description="share of the old average in the new one")

    params: Params

    def build(self, snapshots: Sequence[State]) -> tuple[History, ...]:
        """One average."""
        return (Ema(self.params.decay),)


@register_history("lag_and_start")
class LagAndStart(HistoryPlugin):
    """The model of `lag` rounds ago and that of the end of burn-in, both."""

    modes: ClassVar[tuple[Mode, ...]] = ("update",)

    class Params(Section):
        """How long ago."""

        lag: Count = 3

    params: Params

    def build(self, snapshots: Sequence[State]) -> tuple[History, ...]:
        """Two histories."""
        return (Lag(self.params.lag), Snapshot(snapshots[-1]))


def _copy(state: State, like: State | None = None) -> dict[str, Tensor]:
    """A clone of every tensor, on the device of its namesake in `like`, if there is one."""
    return {
        name: tensor.detach().to((like or {}).get(name, tensor).device, copy=True) for name, tensor in state.items()
    }
