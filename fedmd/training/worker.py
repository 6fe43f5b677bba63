"""The one model that a client process loads, trains and attacks with, whichever client it speaks for."""

from functools import lru_cache

import torch
from torch import nn

from fedmd.data.federated import world_of
from fedmd.models import model_for
from fedmd.training.device import resolve_device


@lru_cache(maxsize=2)
def client_model(run: str) -> nn.Module:
    """The model of a configuration's JSON text; its weights are whatever was last loaded into it."""
    world = world_of(run)
    device = resolve_device("auto" if world.config.runtime.client_gpus > 0 else "cpu")
    return model_for(world.config.model, world.images, world.config.seed).to(device)


def fix_threads(run: str) -> None:
    """As many threads as the worker has cores, whatever OMP_NUM_THREADS says: a run repeats."""
    torch.set_num_threads(max(1, int(world_of(run).config.runtime.client_cpus)))
