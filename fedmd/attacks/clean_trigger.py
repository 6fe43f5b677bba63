"""Eq (4) with a clean trigger, as the colluders of mode=update carry it out: what every one of them sends.

The trigger batch is the first part of the attackers' own data, the rest is their validation set. A push is one local
step of SGD, at the clients' learning rate, on the objective λ S instead of a loss. Its momentum is the attackers' own,
as there is none at a server that averages:

    v ← β v + λ ∇_θ S,   Δ = −η lr v,   η = clients / colluders of the round unless told: the mean moves by one step

Batch-norm statistics are sent as one pass over the trigger batch and one over the validation set leave them, at the
server's own parameters: those of honest training would be of a model that the first honest step has already broken.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.attacks.accumulative_update import GRADIENT_CLIP, accumulative_push, bounded, unnoticed
from fedmd.attacks.adaptive import (
    DefenseKnowledge,
    discrepancy_gradient,
    largest_discrepancy,
    most_worthwhile,
    seen_models,
)
from fedmd.attacks.base import Knowledge, Situation, State, Team
from fedmd.attacks.vectors import flatten, parameters_only, unflatten
from fedmd.training.evaluate import batch_normalising, evaluating
from fedmd.training.local import floating, train_client
from fedmd.types import ImageSet

Batch = tuple[Tensor, Tensor]  # samples and labels

RATE = 0.02
PENALTY = 0.1


class CleanTriggerParams(Protocol):
    """The settings that matter here; see the attack `accumulative`."""

    scale: float | None
    rate: float | None
    momentum: float
    boost: float
    trigger_samples: int | None
    max_loss_rise: float | None
    defense_knowledge: DefenseKnowledge
    discrepancy_penalty: float | None
    max_discrepancy: float | None


def clean_push(team: Team, params: CleanTriggerParams, known: Knowledge) -> Tensor:
    """Δ of an accumulative round [d], the same for all colluders; notes S."""

    def push() -> dict[str, Tensor]:
        share = known.colluders / known.clients
        scale = 1 / share if params.scale is None else params.scale
        trigger, (x, y) = (part.tensors(_device(known.situation.model)) for part in own_parts(team, params))
        screened = None if params.defense_knowledge == "none" else _Screened(team, params, known.situation, x)
        step = _step(team, params, known.situation, trigger, (x, y), screened)
        before = team.cache.kept("velocity")
        moving = step if before is None else step + params.momentum * before["v"].to(step)
        if params.max_loss_rise is not None:
            loss = partial(_loss, known.situation, x, y)
            limit = _loss_at_start(team, loss, moving) + params.max_loss_rise
            moving = unnoticed(moving, lambda v: loss(share * (scale * v)), limit)
        if screened is not None and params.max_discrepancy is not None:
            moving = unnoticed(moving, lambda v: screened.discrepancy(scale * v), params.max_discrepancy)
        team.cache.keep("velocity", {"v": moving.cpu()})
        return {"push": scale * moving.cpu()}

    return team.cache.once("push", known.situation.round, push)["push"]


def clean_trigger(team: Team, params: CleanTriggerParams, known: Knowledge) -> Tensor:
    """Δ of a trigger round [d]: what a client whose data is the trigger batch would honestly learn, times `boost`."""

    def learn() -> dict[str, Tensor]:
        situation, (trigger, validation) = known.situation, own_parts(team, params)
        model = situation.model
        train_client(
            model,
            situation.start,
            trigger,
            team.config,
            client=min(team.members),
            round=situation.round,
            proximal_mu=situation.proximal_mu,
        )
        learned = _parameters(model, model.state_dict()) - _parameters(model, situation.start).to(_device(model))
        sent = params.boost * learned
        if params.defense_knowledge != "none":
            x, y = validation.tensors(_device(model))
            screened = _Screened(team, params, situation, x)
            if params.max_discrepancy is not None:
                sent = unnoticed(sent, screened.discrepancy, params.max_discrepancy)
            else:
                sent = most_worthwhile(sent, lambda update: screened.worth(update, y))
        return {"push": sent.cpu()}

    return team.cache.once("push", known.situation.round, learn)["push"]


def statistics_at(team: Team, params: CleanTriggerParams, situation: Situation) -> dict[str, Tensor]:
    """The buffers that are sent, by name: θ_t's after a pass in train mode over each part of the attackers' data."""
    model = _server_model(situation)
    parameters = {name for name, _ in model.named_parameters()}
    with torch.no_grad(), batch_normalising(model):
        for part in own_parts(team, params):
            model(part.tensors(_device(model))[0])
    state = floating(model.state_dict())
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if name not in parameters}


def own_parts(team: Team, params: CleanTriggerParams) -> tuple[ImageSet, ImageSet]:
    """The attackers' own data: trigger batch and validation set, apart."""
    order = np.arange(len(team.own_data))
    size = trigger_size(params.trigger_samples, len(order))
    return team.own_data.take(order[:size]), team.own_data.take(order[size:])


def trigger_size(wanted: int | None, own: int) -> int:
    """How many of the attackers' ``own`` samples are the trigger batch."""
    return own // 3 if wanted is None else wanted


class _Screened:
    """What attackers who know the defence can measure of it: eq (10) on their own images `x`, see `adaptive`."""

    def __init__(self, team: Team, params: CleanTriggerParams, situation: Situation, x: Tensor) -> None:
        lag = getattr(team.config.history.params, "lag", None)
        nothing = torch.zeros_like(_parameters(situation.model, situation.start))
        seen = seen_models(team.cache, situation.round, situation.start, lag)
        answers = [_answers(situation.model, replace(situation, start=state), state, x, nothing) for state in seen]
        self.historical = torch.stack(answers)
        self.penalty = PENALTY if params.discrepancy_penalty is None else params.discrepancy_penalty
        sent = {**situation.start, **statistics_at(team, params, situation)}
        self._answers = partial(_answers, situation.model, situation, sent, x)

    def discrepancy(self, update: Tensor) -> float:
        """D(θ_t + Δ) in nats; not a number where the answers are none."""
        return largest_discrepancy(self.historical, self._answers(update)).item()

    def worth(self, update: Tensor, y: Tensor) -> float:
        """E − μ D: the share of `y` [N] that is not answered, less the price; −inf where the answers are no numbers."""
        logits = self._answers(update)
        value = (logits.argmax(dim=1) != y).float().mean() - self.penalty * largest_discrepancy(self.historical, logits)
        return value.item() if bool(value.isfinite()) else -math.inf


def _step(
    team: Team,
    params: CleanTriggerParams,
    situation: Situation,
    trigger: Batch,
    validation: Batch,
    screened: _Screened | None,
) -> Tensor:
    """A local step on λ S [d], or where they know the model that they are held against, on λ S + μ D; notes S."""
    lr, rate = team.config.local.lr, RATE if params.rate is None else params.rate
    step, similarity = accumulative_push(
        _server_model(situation), *trigger, *validation, rate=lr * rate, trigger="clean"
    )
    team.cache.note(situation.round, "similarity", similarity)
    if screened is None or params.defense_knowledge != "model":
        return step
    uphill = discrepancy_gradient(_server_model(situation), screened.historical, validation[0])
    return step - lr * screened.penalty * bounded(uphill, GRADIENT_CLIP)


def _loss(situation: Situation, x: Tensor, y: Tensor, update: Tensor) -> float:
    """Cross-entropy of the server's model on `x`, `y` after ``update`` [d]."""
    return cross_entropy(_answers(situation.model, situation, situation.start, x, update), y.long()).item()


def _loss_at_start(team: Team, loss: Callable[[Tensor], float], like: Tensor) -> float:
    """``loss`` before the first push, which all colluders go by from then on."""
    at_start: float | None = team.cache.announced("loss_at_start")
    if at_start is None:
        at_start = loss(torch.zeros_like(like))
        team.cache.announce("loss_at_start", at_start)
    return at_start


@torch.no_grad()
def _answers(model: nn.Module, situation: Situation, state: State, x: Tensor, update: Tensor) -> Tensor:
    """Logits [N, K] for `x` of the server's parameters moved by ``update`` [d], with the buffers of ``state``."""
    start = _parameters(model, situation.start)
    moved = unflatten(start + update.to(start), parameters_only(model, situation.start))
    model.load_state_dict({**state, **moved}, strict=False)  # counters of batches are in no floating state
    with evaluating(model):
        logits: Tensor = model(x)
    return logits


def _server_model(situation: Situation) -> nn.Module:
    situation.model.load_state_dict(situation.start)
    return situation.model


def _parameters(model: nn.Module, state: State) -> Tensor:
    return flatten(parameters_only(model, state)).detach()


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
