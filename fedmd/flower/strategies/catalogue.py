"""Flower's strategies by name, so configured that they take part in every round with whoever is there."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
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
from torch import Tensor, nn

from fedmd.config import RunConfig, ScreeningConfig
from fedmd.defense.history import build_histories
from fedmd.defense.updates.limits import UpdateThreshold, fixed_threshold, robust_threshold
from fedmd.flower.server.guarded import Guarded, Settle
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.flat import CenteredClipping, FLTrust, NormClipping
from fedmd.flower.strategies.screening import DiscrepancyScreening, OnVerdicts
from fedmd.rounds.global_model import GlobalModel
from fedmd.training.burn_in import Weights
from fedmd.training.local import floating, train_client

# All that ClientGrid shows is asked: it has sampled already. Nobody evaluates at home, and nobody is waited for.
_EVERYBODY: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 0,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 0,
}
Build = Callable[[RunConfig, GlobalModel], Strategy]

STRATEGIES: dict[str, Build] = {
    "fedavg": lambda config, server: FedAvg(**_EVERYBODY),
    "fedavgm": lambda config, server: FedAvgM(
        **_EVERYBODY, server_learning_rate=config.strategy.lr, server_momentum=config.strategy.momentum
    ),
    "fedadam": lambda config, server: FedAdam(**_EVERYBODY, eta=config.strategy.lr, beta_1=config.strategy.momentum),
    "fedprox": lambda config, server: FedProx(**_EVERYBODY, proximal_mu=config.strategy.proximal_mu),
    "fedmedian": lambda config, server: FedMedian(**_EVERYBODY),
    "fedtrimmedavg": lambda config, server: FedTrimmedAvg(**_EVERYBODY, beta=config.strategy.malicious_share),
    "krum": lambda config, server: Krum(**_EVERYBODY, num_malicious_nodes=assumed_malicious(config)),
    "multikrum": lambda config, server: MultiKrum(
        **_EVERYBODY,
        num_malicious_nodes=assumed_malicious(config),
        num_nodes_to_select=config.federation.sampled_clients - assumed_malicious(config),
    ),
    "bulyan": lambda config, server: Bulyan(**_EVERYBODY, num_malicious_nodes=assumed_malicious(config)),
    "norm_clipping": lambda config, server: NormClipping(
        **_EVERYBODY, entries=_parameters(server), bound=config.strategy.bound
    ),
    "fltrust": lambda config, server: FLTrust(
        **_EVERYBODY, entries=_parameters(server), root_update=partial(_root_update, config, server)
    ),
    "centered_clipping": lambda config, server: CenteredClipping(
        **_EVERYBODY,
        entries=_parameters(server),
        radius=config.strategy.radius,
        iterations=config.strategy.iterations,
    ),
    "byzfl": lambda config, server: ByzFL(
        **_EVERYBODY,
        entries=_parameters(server),
        aggregator=config.strategy.aggregator,
        options=config.strategy.options,
        seed=config.seed,
    ),
}


def _parameters(server: GlobalModel) -> list[str]:
    """What norms and angles are taken of; batch-norm statistics are averaged beside."""
    return [name for name, _ in server.model.named_parameters()]


def _root_update(config: RunConfig, server: GlobalModel, server_round: int, start: Weights) -> Weights:
    """FLTrust's own update: the server trains on its trusted set as if it were one more client."""
    model = copy.deepcopy(server.model)
    complete = {**model.state_dict(), **start}
    one_more, round = config.federation.clients, server_round - 1
    train_client(model, complete, server.trusted_set, config, client=one_more, round=round)
    return model.state_dict()


def assumed_malicious(config: RunConfig) -> int:
    """How many of a round's clients the defender takes for malicious."""
    return round(config.strategy.malicious_share * config.federation.sampled_clients)


def build_strategy(
    config: RunConfig, server: GlobalModel, snapshots: Sequence[Weights], on_verdicts: OnVerdicts, settle: Settle
) -> Strategy:
    """The configured strategy behind the guard, and behind the screening if that is the defence.

    `snapshots` are those of burn-in; `settle` is the guard's word before every aggregation, see `Guarded`.
    """
    strategy = Guarded(STRATEGIES[config.strategy.name](config, server), settle)
    if config.defense.name != "md_screen":
        return strategy
    return DiscrepancyScreening(
        strategy,
        model=averaged_part(server.model),
        probe=_probe(server, config.screening.probe),
        threshold=update_threshold(config.screening),
        loss_threshold=loss_threshold(config.screening),
        history=build_histories(config.history, [floating(snapshot) for snapshot in snapshots]),
        action=config.screening.action,
        on_verdicts=on_verdicts,
    )


def _probe(server: GlobalModel, samples: int | None) -> list[tuple[Tensor, Tensor]]:
    """The first `samples` of the trusted set, in batches of images and labels."""
    x, y = (tensor[:samples] for tensor in server.trusted)
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
