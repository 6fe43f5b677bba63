"""The one model that a client process loads, trains and attacks with, whichever client it speaks for."""

from functools import lru_cache

import torch
from torch import nn

from fedmd.data.federated import federated_data_of
from fedmd.models import model_for
from fedmd.training.device import resolve_device


@lru_cache(maxsize=2)
def client_model(run: str) -> nn.Module:
    """The model of a configuration's JSON text; its weights are whatever was last loaded into it."""
    data = federated_data_of(run)
    device = resolve_device("auto" if data.config.runtime.client_gpus > 0 else "cpu")
    return model_for(data.config.model, data.images, data.config.seed).to(device)


def fix_threads(run: str) -> None:
    """As many threads as the worker has cores, whatever OMP_NUM_THREADS says: a run repeats."""
    torch.set_num_threads(max(1, int(federated_data_of(run).config.runtime.client_cpus)))
