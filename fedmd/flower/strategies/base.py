"""What every strategy of mode=update is: how a Flower strategy is made, and what it remembers."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from pydantic import Field
from torch import Tensor

from fedmd.config import ConfigError, RunConfig, Section
from fedmd.registry import Plugin
from fedmd.rounds.model import ServerModel
from fedmd.storage import Saved

# Settings of Flower's strategies: all nodes are asked, as the round loop has sampled clients already. Nobody evaluates
# at home, and nobody is waited for.
EVERYBODY: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 0,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 0,
}

Minority = Annotated[float, Field(ge=0, lt=0.5)]


class AssumesMalicious(Section):
    """Params of a strategy that is told how many clients to expect the worst of."""

    malicious_share: Minority = Field(0.2, description="of a round, as the defender assumes it: f = round(share * n)")

    def malicious(self, run: RunConfig) -> int:
        """f: how many of a round's clients the defender takes for malicious."""
        return round(self.malicious_share * run.federation.sampled_clients)


class StrategyPlugin(Plugin):
    """Makes the Flower strategy that aggregates a round's updates, with `EVERYBODY` among its settings.

    remembers: the attributes that a strategy keeps from round to round, NumPy arrays or lists or dicts of them; () for
    one without memory. None: that is not known, and a run with it is not resumed, as going on without its memory would
    be another run.
    """

    remembers: ClassVar[tuple[str, ...] | None] = None

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """The strategy that moves the server's model."""
        raise NotImplementedError

    def memory(self, strategy: Strategy) -> Saved | None:
        """What `strategy` remembers; None where that is not known."""
        return None if self.remembers is None else {n: _as_tensors(getattr(strategy, n)) for n in self.remembers}

    def restore(self, strategy: Strategy, saved: Saved) -> None:
        """Put back what `memory` returned for a strategy made like this one."""
        for name, value in saved.items():
            setattr(strategy, name, _as_arrays(value))


def strategy_of(run: RunConfig) -> StrategyPlugin:
    """The strategy that a run's configuration chose."""
    plugin: StrategyPlugin = run.strategy.make()
    return plugin


def restore_memory(plugin: StrategyPlugin, strategy: Strategy, saved: Saved | None) -> None:
    """`plugin.restore`. Raises ConfigError when nothing was saved."""
    if saved is None:
        raise ConfigError("resume: what this strategy remembers from round to round cannot be saved; start anew.")
    plugin.restore(strategy, saved)


def _as_tensors(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_tensors(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_tensors(each) for each in value]
    return None if value is None else torch.from_numpy(np.asarray(value))


def _as_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_arrays(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_arrays(each) for each in value]
    return value.clone().numpy() if isinstance(value, Tensor) else value
