"""What a process sets up once: the server its data and burned-in models, a client process its one model."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn

from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import FederatedData, federated_data_of, load_federated_data
from fedmd.models import model_for
from fedmd.training.allocator import keep_freed_memory
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Placement
from fedmd.types import Stage


@dataclass(frozen=True)
class Setup:
    """The data of a run, where its server computes, and its models up to the end of burn-in."""

    data: FederatedData
    placement: Placement
    trained: BurnIn


def set_up(config: RunConfig, on_stage: Callable[[Stage], None] = lambda stage: None) -> Setup:
    """Fix the number of threads, load the data, and burn in (or take that from the cache), saying so to `on_stage`.

    Raises ConfigError for data or a model that cannot be had.
    """
    torch.set_num_threads(config.runtime.threads)
    keep_freed_memory()
    epochs = config.training.burn_in.epochs
    on_stage(Stage("data"))
    data, placement = load_federated_data(config), Placement.of(config.runtime)
    cache = default_cache_dir(config.runtime.cache_dir)

    def on_epoch(done: int, of: int) -> None:
        on_stage(Stage("burn-in", done, of))

    on_epoch(0, epochs)
    trained = burn_in(config, data.images, data.split, placement=placement, cache_dir=cache, on_epoch=on_epoch)
    return Setup(data, placement, trained)


@lru_cache(maxsize=2)
def client_model(run: str) -> nn.Module:
    """The model of a configuration's JSON text, for whichever client: its weights are those last loaded into it."""
    data = federated_data_of(run)
    model = model_for(data.config.model, data.images, data.config.seed)
    return Placement.of_client(data.config.runtime).place(model)


def fix_threads(run: str) -> None:
    """As many threads as the worker has cores, whatever OMP_NUM_THREADS says: a run repeats."""
    keep_freed_memory()
    torch.set_num_threads(max(1, int(federated_data_of(run).config.runtime.client_cpus)))
