"""Flower's strategies by name, so configured that they take part in every round with whoever is there."""

import copy
from collections.abc import Callable
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

from fedmd.config import RunConfig
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.flat import CenteredClipping, FLTrust, NormClipping
from fedmd.rounds.model import ServerModel
from fedmd.training.burn_in import Weights
from fedmd.training.local import train_client

# All that ClientGrid shows is asked: it has sampled already. Nobody evaluates at home, and nobody is waited for.
_EVERYBODY: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 0,
    "min_evaluate_nodes": 0,
    "min_available_nodes": 0,
}
Build = Callable[[RunConfig, ServerModel], Strategy]

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


def _parameters(server: ServerModel) -> list[str]:
    """What norms and angles are taken of; batch-norm statistics are averaged beside."""
    return [name for name, _ in server.net.named_parameters()]


def _root_update(config: RunConfig, server: ServerModel, server_round: int, start: Weights) -> Weights:
    """FLTrust's own update: the server trains on its trusted set as if it were one more client."""
    model = copy.deepcopy(server.net)
    complete = {**model.state_dict(), **start}
    one_more, round = config.federation.clients, server_round - 1
    train_client(model, complete, server.trusted_set, config, client=one_more, round=round)
    return model.state_dict()


def assumed_malicious(config: RunConfig) -> int:
    """How many of a round's clients the defender takes for malicious."""
    return round(config.strategy.malicious_share * config.federation.sampled_clients)


def build_strategy(config: RunConfig, server: ServerModel) -> Strategy:
    """The configured strategy, which moves the server's model."""
    return STRATEGIES[config.strategy.name](config, server)
