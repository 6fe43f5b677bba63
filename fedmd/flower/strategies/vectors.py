"""Norm clipping, FLTrust and centered clipping as Flower strategies, over the kernels of `updates.aggregators`.

They see updates Δ_i = θ_i − θ_t as rows of one matrix [n, d], made of the floating entries named in `entries`; what is
left out (integers, and whatever `entries` omits) is averaged as FedAvg does, integers rounded.
"""

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from pydantic import Field
from torch import Tensor

from fedmd.config import Count, Positive, RunConfig, Section
from fedmd.defense.updates.aggregators import centered_clipping, clip_norms, fltrust
from fedmd.flower.strategies.base import EVERYBODY, StrategyPlugin
from fedmd.registry import register_strategy
from fedmd.rounds.model import ServerModel
from fedmd.storage import Saved
from fedmd.training.local import train_client

RootUpdate = Callable[[int, dict[str, Tensor]], Mapping[str, Tensor]]


class VectorStrategy(FedAvg):
    """FedAvg with another rule for the updates: a subclass says how rows become one.

    `entries` names the arrays the rule looks at, by default every floating one, BatchNorm's running statistics
    included; the net's parameter names keep those out of norms and angles. All other arguments are FedAvg's.
    """

    def __init__(self, *, entries: Collection[str] | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._entries = entries
        self._current: dict[str, Tensor] = {}

    def combine(self, server_round: int, updates: Tensor, weights: Tensor) -> Tensor:
        """One update [d] from `updates` [n, d]; `weights` [n] are the clients' shares of the examples, sum 1."""
        raise NotImplementedError

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember θ_t, then FedAvg's."""
        self._current = {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """θ_t plus what `combine` makes of the updates; metrics as FedAvg."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        updates = torch.stack([self._update(content) for content in contents])
        claimed = [float(_metrics(content)[self.weighted_by_key]) for content in contents]  # type: ignore[arg-type]
        weights = torch.tensor(claimed, dtype=torch.float64)
        step = self.combine(server_round, updates, (weights / weights.sum()).to(updates.dtype))
        averaged = aggregate_arrayrecords(contents, self.weighted_by_key)
        return self._stepped(step, averaged), self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """The entries the rule looks at, as one vector [d] on the CPU."""
        return torch.cat([state[name].detach().cpu().flatten() for name in self._names()])

    def _names(self) -> list[str]:
        floating = [name for name, tensor in self._current.items() if tensor.is_floating_point()]
        return floating if self._entries is None else [name for name in floating if name in self._entries]

    def _update(self, content: RecordDict) -> Tensor:
        record = next(iter(content.array_records.values()))
        return self.vector({n: torch.from_numpy(record[n].numpy()) for n in self._names()}) - self.vector(self._current)

    def _stepped(self, step: Tensor, averaged: ArrayRecord) -> ArrayRecord:
        new: dict[str, Tensor] = {}
        names, start = set(self._names()), 0
        for name, old in self._current.items():
            if name in names:
                new[name] = old + step[start : start + old.numel()].view_as(old).to(old.dtype)
                start += old.numel()
            else:
                mean = torch.from_numpy(np.asarray(averaged[name].numpy()))
                new[name] = mean.to(old.dtype) if old.is_floating_point() else mean.round().to(old.dtype)
        return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in new.items()})


class NormClipping(VectorStrategy):
    """FedAvg of updates clipped to the norm `bound` (Sun et al. 2019); None: the median norm of the round."""

    def __init__(self, *, bound: float | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self._bound = bound

    def combine(self, server_round: int, updates: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean of the clipped updates."""
        return weights @ clip_norms(updates, self._bound)


class CenteredClipping(VectorStrategy):
    """Clipping round the round before's aggregate (Karimireddy et al. 2021); every client counts the same."""

    def __init__(self, *, radius: float | None = None, iterations: int = 3, **settings: Any) -> None:
        super().__init__(**settings)
        self._radius, self._iterations = radius, iterations
        self._centre: Tensor | None = None

    def combine(self, server_round: int, updates: Tensor, weights: Tensor) -> Tensor:
        """The clipped mean, which is also the next round's centre."""
        centre = torch.zeros_like(updates[0]) if self._centre is None else self._centre
        self._centre = centered_clipping(updates, centre, self._radius, self._iterations)
        return self._centre

    def state(self) -> Saved:
        """The centre; None before the first round."""
        return {"centre": self._centre}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` returned."""
        self._centre = None if saved["centre"] is None else saved["centre"].clone()


class FLTrust(VectorStrategy):
    """Updates weighted by their agreement with the server's own (Cao et al. 2021).

    `root_update(round, θ_t)` trains on the server's trusted set, from a state dict, as a client would, and returns the
    trained state dict.
    """

    def __init__(self, *, root_update: RootUpdate, **settings: Any) -> None:
        super().__init__(**settings)
        self._root_update = root_update

    def combine(self, server_round: int, updates: Tensor, weights: Tensor) -> Tensor:
        """FLTrust's mean; the clients' numbers of examples play no part."""
        start = {name: tensor.clone() for name, tensor in self._current.items()}
        reference = self.vector(self._root_update(server_round, start)) - self.vector(self._current)
        return fltrust(updates, reference.to(updates.dtype))


@register_strategy("norm_clipping")
class NormClippingPlugin(StrategyPlugin):
    """Mean of updates no longer than `bound` (Sun et al., 2019)."""

    label = "norm clipping"
    remembers = ()

    class Params(Section):
        """The bound."""

        bound: Positive | None = Field(None, description="null: the median norm of the round")

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Norms are of parameters; batch-norm statistics are averaged beside."""
        return NormClipping(**EVERYBODY, entries=parameter_names(server), bound=self.params.bound)


@register_strategy("centered_clipping")
class CenteredClippingPlugin(StrategyPlugin):
    """Clipped round the aggregate of the round before (Karimireddy et al., 2021)."""

    label = "centered clipping"

    class Params(Section):
        """How it clips."""

        radius: Positive | None = Field(None, description="null: the median distance")
        iterations: Count = 3

    params: Params

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Distances are of parameters; batch-norm statistics are averaged beside."""
        return CenteredClipping(**EVERYBODY, entries=parameter_names(server), **self.params.model_dump())

    def memory(self, strategy: Strategy) -> Saved:
        """The centre."""
        return cast(CenteredClipping, strategy).state()

    def restore(self, strategy: Strategy, saved: Saved) -> None:
        """Put the centre back."""
        cast(CenteredClipping, strategy).restore(saved)


@register_strategy("fltrust")
class FLTrustPlugin(StrategyPlugin):
    """Updates weighted by their agreement with one trained on the trusted set (Cao et al., 2021)."""

    label = "FLTrust"
    remembers = ()

    def build(self, run: RunConfig, server: ServerModel) -> Strategy:
        """Angles are of parameters; batch-norm statistics are averaged beside."""

        def root_update(server_round: int, start: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            """The server trains on its trusted set as if it were one more client."""
            model = copy.deepcopy(server.net)
            complete = {**model.state_dict(), **start}
            one_more, round = run.federation.clients, server_round - 1
            train_client(model, complete, server.trusted_set, run, client=one_more, round=round)
            return model.state_dict()

        return FLTrust(**EVERYBODY, entries=parameter_names(server), root_update=root_update)


def parameter_names(server: ServerModel) -> list[str]:
    """What norms and angles are taken of."""
    return [name for name, _ in server.net.named_parameters()]


def _metrics(content: RecordDict) -> MetricRecord:
    return next(iter(content.metric_records.values()))
