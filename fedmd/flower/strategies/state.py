"""What Flower's and our own strategies remember from round to round, saved and put back.

Flower's strategies have no interface for that, so it is written down here what each of them keeps. One that is not
known is not saved, and a run with it is not resumed: going on without its memory would be another run.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
    Strategy,
)
from numpy.typing import NDArray
from torch import Tensor

from fedmd.config import ConfigError
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.flat import CenteredClipping, FLTrust, NormClipping
from fedmd.storage import Saved


def strategy_state(strategy: Strategy) -> Saved | None:
    """What `strategy` remembers; None where that is not known."""
    if type(strategy) not in _KNOWN:
        return None
    state: Saved | None = _KNOWN[type(strategy)][0](strategy)
    return state


def restore_strategy(strategy: Strategy, saved: Saved | None) -> None:
    """Put back what `strategy_state` returned for a strategy made like this one.

    Raises ConfigError when nothing was saved.
    """
    if saved is None:
        raise ConfigError("resume: what this strategy remembers from round to round cannot be saved; start anew.")
    _KNOWN[type(strategy)][1](strategy, saved)


def _tensors(arrays: dict[str, NDArray[Any]] | None) -> dict[str, Tensor] | None:
    return None if arrays is None else {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}


def _arrays(tensors: dict[str, Tensor] | None) -> dict[str, NDArray[Any]] | None:
    return None if tensors is None else {name: tensor.clone().numpy() for name, tensor in tensors.items()}


def _nothing(strategy: Strategy) -> Saved:
    return {}


def _nothing_back(strategy: Strategy, saved: Saved) -> None:
    """Nothing to put back."""


def _momentum(strategy: FedAvgM) -> Saved:
    """`current_arrays` is the global model in every round that moves it."""
    vector = strategy.momentum_vector
    return {"momentum": None if vector is None else [torch.from_numpy(np.asarray(array)) for array in vector]}


def _momentum_back(strategy: FedAvgM, saved: Saved) -> None:
    momentum = saved["momentum"]
    strategy.momentum_vector = None if momentum is None else [tensor.clone().numpy() for tensor in momentum]


def _moments(strategy: FedAdam) -> Saved:
    return {"m": _tensors(strategy.m_t), "v": _tensors(strategy.v_t)}


def _moments_back(strategy: FedAdam, saved: Saved) -> None:
    strategy.m_t, strategy.v_t = _arrays(saved["m"]), _arrays(saved["v"])


_STATELESS = (FedAvg, FedProx, FedMedian, FedTrimmedAvg, Krum, MultiKrum, Bulyan, NormClipping, FLTrust)
_KNOWN: dict[type[Strategy], tuple[Callable[[Any], Saved | None], Callable[[Any, Saved], None]]] = {
    **dict.fromkeys(_STATELESS, (_nothing, _nothing_back)),
    **dict.fromkeys((FedAdam, FedYogi, FedAdagrad), (_moments, _moments_back)),
    FedAvgM: (_momentum, _momentum_back),
    CenteredClipping: (CenteredClipping.state, CenteredClipping.restore),
    ByzFL: (ByzFL.state, ByzFL.restore),
}
