"""What everybody who acts as the server needs before the first round: the data, and the burned-in models."""

from dataclasses import dataclass

import torch

from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import World, build_world
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Numerics


@dataclass(frozen=True)
class Prepared:
    """The world of a run, the arithmetic of its server, and its models up to the end of burn-in."""

    world: World
    numerics: Numerics
    trained: BurnIn


def prepare(config: RunConfig) -> Prepared:
    """Fix the number of threads, load the data, and burn in (or take that from the cache).

    Raises ConfigError for data or a model that cannot be had.
    """
    torch.set_num_threads(config.runtime.threads)
    world, numerics = build_world(config), Numerics.of(config.runtime)
    cache = default_cache_dir(config.runtime.cache_dir)
    return Prepared(world, numerics, burn_in(config, world.images, world.parts, numerics=numerics, cache_dir=cache))
