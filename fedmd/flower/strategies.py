"""Flower's strategies by name, so configured that they take part in every round with whoever is there."""

from collections.abc import Callable

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

# All that ClientGrid shows is asked: it has sampled already. Nobody evaluates at home, and nobody is waited for.
_EVERYBODY = {
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
