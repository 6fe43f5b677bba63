"""Any aggregator of ByzFL (Gonzalez et al. 2025) as a Flower strategy; needs `pip install byzfl`."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from flwr.serverapp.strategy import Strategy
from pydantic import Field
from torch import Tensor

from fedmd.config import ConfigError, RunConfig, Section
from fedmd.flower.strategies.base import EVERYBODY, StrategyPlugin
from fedmd.flower.strategies.vectors import VectorStrategy, parameter_names
from fedmd.registry import register_strategy
from fedmd.rounds.model import ServerModel
from fedmd.seeding import seed_for
from fedmd.storage import Saved


class ByzFL(VectorStrategy):
    """The updates' aggregate by ByzFL's class `aggregator`, made with `options`, e.g. ("GeometricMedian", {"nu": 0.1}).

    Every client counts the same; the rule keeps its state from round to round, if it has any. Rules that draw random
    numbers (CAF, SMEA) take them from PyTorch's own generator, which is seeded by `seed` and the round.

    Raises:
        ConfigError: ByzFL is not installed, has no such aggregator, or does not take these options.
    """

    def __init__(
        self, *, aggregator: str, options: Mapping[str, Any] | None = None, seed: int = 0, **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._rule = byzfl_rule(aggregator, options or {})
        self._seed = seed

    def combine(self, server_round: int, updates: Tensor, weights: Tensor) -> Tensor:
        """What ByzFL's rule makes of the rows."""
        torch.manual_seed(seed_for(self._seed, "byzfl", round=server_round))
        return self._rule(updates).to(updates.dtype)

    def state(self) -> Saved | None:
        """The rule's attributes, such as CenteredClipping's centre; None when one is no tensor or plain value."""
        return _remembered(self._rule)

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        for name, value in saved.items():
            setattr(self._rule, name, value.clone() if isinstance(value, Tensor) else value)


@register_strategy("byzfl")
class ByzFLPlugin(StrategyPlugin):
    """Any aggregator of ByzFL (Gonzalez et al., 2025); pip install byzfl."""

    label = "ByzFL"

    class Params(Section):
        """Which one."""

        aggregator: str = "GeometricMedian"
        options: dict[str, int | float | str] = Field(
            default_factory=dict, description="of that class, on the command line: +strategy.options.nu=0.1"
        )

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Its rule looks at parameters; batch-norm statistics are averaged beside."""
        return ByzFL(**EVERYBODY, entries=parameter_names(server), seed=run.seed, **self.params.model_dump())

    def memory(self, strategy: Strategy) -> Saved | None:
        """The rule's."""
        return cast(ByzFL, strategy).state()

    def restore(self, strategy: Strategy, saved: Saved) -> None:
        """Put it back."""
        cast(ByzFL, strategy).restore(saved)


def _remembered(rule: object) -> Saved | None:
    plain = all(value is None or isinstance(value, Tensor | str | int | float) for value in vars(rule).values())
    return dict(vars(rule)) if plain else None


def byzfl_rule(aggregator: str, options: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """ByzFL's rule by its class name: [n, d] -> [d]. Raises ConfigError as `ByzFL` does."""
    try:
        from byzfl.aggregators import aggregators  # an optional extra, and slow to import
    except ImportError as error:
        raise ConfigError("strategy.name: byzfl needs an optional package: pip install byzfl.") from error
    rules = {
        name: rule
        for name, rule in vars(aggregators).items()
        if isinstance(rule, type) and rule.__module__ == aggregators.__name__
    }
    if aggregator not in rules:
        raise ConfigError(f"strategy.aggregator: {aggregator!r} is not one of {', '.join(sorted(rules))}.")
    try:
        rule: Callable[[Tensor], Tensor] = rules[aggregator](**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy.options: byzfl's {aggregator} does not take {dict(options)}: {error}.") from error
    return rule
