"""Flower's strategies by name, so configured that they take part in every round with whoever is there."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)
from torch import nn

from fedmd.config import HistoryConfig, RunConfig, ScreeningConfig
from fedmd.defense.update_history import StateEma, StateHistory, StateLag, StateSnapshot
from fedmd.defense.update_threshold import UpdateThreshold, fixed_threshold, robust_threshold
from fedmd.flower.screening import DiscrepancyScreening, OnVerdicts
from fedmd.server.global_model import GlobalModel
from fedmd.training.burn_in import Weights
from fedmd.training.local import floating

# All that ClientGrid shows is asked: it has sampled already. Nobody evaluates at home, and nobody is waited for.
_EVERYBODY: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 0,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 0,
}
Build = Callable[[RunConfig], Strategy]

STRATEGIES: dict[str, Build] = {
    "fedavg": lambda config: FedAvg(**_EVERYBODY),
    "fedavgm": lambda config: FedAvgM(
        **_EVERYBODY, server_learning_rate=config.strategy.lr, server_momentum=config.strategy.momentum
    ),
    "fedadam": lambda config: FedAdam(**_EVERYBODY, eta=config.strategy.lr, beta_1=config.strategy.momentum),
    "fedprox": lambda config: FedProx(**_EVERYBODY, proximal_mu=config.strategy.proximal_mu),
    "fedmedian": lambda config: FedMedian(**_EVERYBODY),
    "fedtrimmedavg": lambda config: FedTrimmedAvg(**_EVERYBODY, beta=config.strategy.malicious_share),
    "krum": lambda config: Krum(**_EVERYBODY, num_malicious_nodes=assumed_malicious(config)),
    "multikrum": lambda config: MultiKrum(
        **_EVERYBODY,
        num_malicious_nodes=assumed_malicious(config),
        num_nodes_to_select=config.federation.sampled_clients - assumed_malicious(config),
    ),
    "bulyan": lambda config: Bulyan(**_EVERYBODY, num_malicious_nodes=assumed_malicious(config)),
}


def assumed_malicious(config: RunConfig) -> int:
    """How many of a round's clients the defender takes for malicious."""
    return round(config.strategy.malicious_share * config.federation.sampled_clients)


def build_strategy(
    config: RunConfig, server: GlobalModel, snapshots: Sequence[Weights], on_verdicts: OnVerdicts
) -> Strategy:
    """The configured strategy, behind the screening if that is the defence. `snapshots` are those of burn-in."""
    strategy = STRATEGIES[config.strategy.name](config)
    if config.defense.name != "md_screen":
        return strategy
    return DiscrepancyScreening(
        strategy,
        model=averaged_part(server.model),
        probe=server.trusted[0][: config.screening.probe],
        threshold=update_threshold(config.screening),
        history=update_history(config.history, snapshots),
        action=config.screening.action,
        on_verdicts=on_verdicts,
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


def update_history(config: HistoryConfig, snapshots: Sequence[Weights]) -> tuple[StateHistory, ...]:
    """The historical models that updates are compared with, by the round."""
    histories: dict[str, tuple[StateHistory, ...]] = {
        "lag": (StateLag(config.lag),),
        "ema": (StateEma(config.decay),),
        "snapshot": (StateSnapshot(floating(snapshots[config.epoch - 1])),),
        "lag_and_start": (StateLag(config.lag), StateSnapshot(floating(snapshots[-1]))),
    }
    return histories[config.name]
