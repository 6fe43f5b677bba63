"""What everybody who acts as the server needs before the first round: the data, and the burned-in models."""

from dataclasses import dataclass

import torch

from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Placement


@dataclass(frozen=True)
class Setup:
    """The data of a run, where its server computes, and its models up to the end of burn-in."""

    data: FederatedData
    placement: Placement
    trained: BurnIn


def set_up(config: RunConfig) -> Setup:
    """Fix the number of threads, load the data, and burn in (or take that from the cache).

    Raises ConfigError for data or a model that cannot be had.
    """
    torch.set_num_threads(config.runtime.threads)
    data, placement = load_federated_data(config), Placement.of(config.runtime)
    cache = default_cache_dir(config.runtime.cache_dir)
    return Setup(data, placement, burn_in(config, data.images, data.split, placement=placement, cache_dir=cache))
