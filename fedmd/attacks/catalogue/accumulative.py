"""The accumulative attack of [AP21]: batches (or updates) that steer the model, then a trigger that bites.

mode=stream: eqs (1) to (3), see `fedmd.attacks.accumulative` and `fedmd.attacks.trigger`; mode=update: eq (4), see
`fedmd.attacks.accumulative_update`; who knows the defence: eq (11), see `fedmd.attacks.adaptive_samples` and
`fedmd.attacks.adaptive`. One trigger batch, one validation set, one steering direction (or push) per model
version: each is computed once for the whole team.

[AP21] Pang et al., Accumulative Poisoning Attacks on Real-time Data, NeurIPS 2021.
"""

import copy
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedmd.attacks.accumulative import Variant, craft_accumulative, steering_direction
from fedmd.attacks.accumulative_update import accumulative_push, add_push, trigger_push
from fedmd.attacks.adaptive import DefenseKnowledge
from fedmd.attacks.adaptive_samples import Restraint, historical_state, sent
from fedmd.attacks.base import Attack, Knowledge, SeesUpdates, State, Team
from fedmd.attacks.clean_trigger import clean_push, clean_trigger, statistics_at, trigger_size
from fedmd.attacks.known_scores import Combined, Discrepancy, RestrainedScore, Score, require_features
from fedmd.attacks.trigger_batch import TriggerParams, crafted_trigger, send_trigger, trigger_members
from fedmd.config import STREAM_ONLY, UPDATE_ONLY, Mode, NonNegative, Positive, RunConfig, Share
from fedmd.registry import register_attack
from fedmd.types import ImageSet, Phase, StreamBatch


@register_attack("accumulative")
class Accumulative(Attack):
    """Accumulative poisons, then one trigger batch (Pang et al., NeurIPS 2021); in mode=update, pushes to updates."""

    label = "accumulative"
    needs_model = True

    class Params(TriggerParams, SeesUpdates):
        """Those of the trigger batch are for mode=stream."""

        gamma: Annotated[NonNegative, STREAM_ONLY] = Field(1.0, description="weight of staying useful, eq (3)")
        variant: Annotated[Variant, STREAM_ONLY] = Field("reg", description="reg | normal | second")
        scale: Annotated[NonNegative | None, UPDATE_ONLY] = Field(
            None,
            description="of what is added to the honest update; null: 1, the published rates. trigger=clean: of the "
            "pushes; null: one over the colluders' share of the round",
        )
        norm_bound: Annotated[Positive | None, UPDATE_ONLY] = Field(
            1.0, description="in median norms of the updates seen; null: none"
        )
        rate: Annotated[Positive | None, UPDATE_ONLY] = Field(
            None, description="lambda of eq (4); null: 0.08 as published, 0.02 with trigger=clean"
        )
        momentum: Annotated[Share, UPDATE_ONLY] = Field(0.9, description="trigger=clean: of the pushes")
        boost: Annotated[Positive, UPDATE_ONLY] = Field(1.0, description="trigger=clean: of the trigger round's step")
        max_loss_rise: Annotated[NonNegative | None, UPDATE_ONLY] = Field(
            None,
            description="trigger=clean: pushes are halved until the attackers' validation loss is no more than this "
            "above the one at the attack's start (nats); null: never",
        )
        defense_knowledge: DefenseKnowledge = Field(
            "none",
            description="what the attackers go by beside their data, eq (11): none; model: the historical model; "
            "model_and_threshold: the limit, too. mode=update: with trigger=clean",
        )
        restrained_score: Annotated[RestrainedScore, STREAM_ONLY] = Field(
            "discrepancy",
            description="who knows the defence: the score that they hold back; discrepancy; combined: with the feature "
            "distance, as p-values among their own data",
        )
        discrepancy_penalty: NonNegative | None = Field(
            None,
            description="defense_knowledge=model: mu of eq (11), the price of a nat in units of (1) and (3); null: "
            "10. mode=update: in rates and in shares of errors; null: 0.1",
        )
        max_discrepancy: Positive | None = Field(
            None,
            description="defense_knowledge=model_and_threshold: what is sent is halved until its discrepancy is no "
            "more (nats). mode=stream: of each sample, of the restrained score; mode=update: on their own data",
        )

    params: Params

    @classmethod
    def check_run(cls, params: Params, run: Any) -> None:
        """The kind of trigger is one of the mode's, and a clean one leaves the attackers something to validate on."""
        super().check_run(params, run)
        allowed = ("fixed", "online") if run.mode == "stream" else ("clean", "reversed")
        if params.trigger not in (None, *allowed):
            raise ValueError(f"attack.trigger: must be {' or '.join(allowed)} in mode={run.mode}, not {params.trigger}")
        for key, reason in cls.unused(params, run.mode).items():
            if getattr(params, key) != cls.Params.model_fields[key].default:
                raise ValueError(f"attack.{key}: {reason}")
        own = run.data.splits.attacker
        if params.trigger == "clean" and not 1 <= trigger_size(params.trigger_samples, own) < own:
            raise ValueError(
                "attack.trigger_samples: must leave the attackers some of their own data to validate on, "
                f"data.splits.attacker={own}"
            )
        if params.defense_knowledge == "model_and_threshold" and params.max_discrepancy is None:
            raise ValueError("attack.max_discrepancy: must be given with attack.defense_knowledge=model_and_threshold")

    @classmethod
    def unused(cls, params: Params, mode: Mode) -> dict[str, str]:
        """What a clean trigger has to itself in mode=update, and what the attackers do not know."""
        if mode == "update" and params.trigger != "clean":
            clean = (
                "momentum",
                "boost",
                "max_loss_rise",
                "defense_knowledge",
                "discrepancy_penalty",
                "max_discrepancy",
            )
            return dict.fromkeys(clean, "is for attack.trigger=clean")
        needs: dict[str, DefenseKnowledge]
        needs = {"discrepancy_penalty": "model", "max_discrepancy": "model_and_threshold"}
        unknown = {
            key: f"is for attack.defense_knowledge={knowledge}"
            for key, knowledge in needs.items()
            if params.defense_knowledge != knowledge
        }
        if params.defense_knowledge == "none":
            unknown["restrained_score"] = "is for attack.defense_knowledge=model or model_and_threshold"
        return unknown

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's slice of the trigger batch; before, its own batch moved within the ball, eqs (2) and (3)."""
        restraint = self._restraint(team, batch.round, model)
        if phase == "trigger":
            return send_trigger(team, self.params, batch, model, restraint)
        x, y = ImageSet(batch.images, batch.labels, team.own_data.classes).tensors(_device(model))
        poisoned = craft_accumulative(
            model,
            x,
            y,
            self._direction(team, batch.round, model, restraint),
            radius=self.params.radius,
            steps=self.params.steps,
            gamma=self.params.gamma,
            variant=self.params.variant,
            restraint=restraint,
        )
        return replace(batch, images=sent(poisoned, batch.images, batch.labels, self.params.radius, restraint))

    def check_model(self, model: nn.Module) -> None:
        """Who holds back a distance of features needs some."""
        if self.params.restrained_score == "combined":
            require_features(model)

    def forward_passes(self, config: RunConfig, own: int) -> float:
        """Second derivatives: of the samples sent, or in mode=update of the attackers' own, once for all of them."""
        members = round(config.attack.fraction * config.federation.sampled_clients)
        if not members:
            return 0.0
        crafted = 15 * own if config.mode == "update" else 150 * members * config.stream.batch_size
        return config.stream.accumulative_rounds * crafted

    @property
    def watches(self) -> bool:
        """Who knows the defence follows the models from the first round on, as the historical one is made of them."""
        return self.params.defense_knowledge != "none"

    def watch(self, team: Team, round: int, model: nn.Module) -> None:
        """Let it become part of the historical model."""
        historical_state(team, round, model)

    def update(self, team: Team, known: Knowledge) -> Tensor:
        """Eq (4), shortened to `norm_bound` median honest norms."""
        bound = self.params.norm_bound
        if self.params.trigger == "clean":
            make = clean_trigger if known.phase == "trigger" else clean_push
            return add_push(torch.zeros_like(known.own), make(team, self.params, known), known.honest, 1.0, bound)
        scale = 1.0 if self.params.scale is None else self.params.scale
        return add_push(known.own, self._push(team, known), known.honest, scale, bound)

    def buffers(self, team: Team, known: Knowledge) -> State | None:
        """trigger=clean: those of the server's model after one look at the attackers' own data."""
        return statistics_at(team, self.params, known.situation) if self.params.trigger == "clean" else None

    def _restraint(self, team: Team, round: int, model: nn.Module) -> Restraint | None:
        """What the team knows of the defence in `round`; None: nothing."""
        if self.params.defense_knowledge == "none":
            return None
        historical = copy.deepcopy(model)
        historical.load_state_dict(historical_state(team, round, model))
        score: Score = (discrepancy := Discrepancy(historical, model))
        if self.params.restrained_score == "combined":
            score = Combined(discrepancy, team.own_data.tensors(_device(model)))
        penalty = 10.0 if self.params.discrepancy_penalty is None else self.params.discrepancy_penalty
        return Restraint(score, penalty, self.params.max_discrepancy)

    def _direction(self, team: Team, round: int, model: nn.Module, restraint: Restraint | None) -> tuple[Tensor, ...]:
        x_tri, y_tri = crafted_trigger(team, self.params, round, model, restraint)

        def steer() -> dict[str, Tensor]:
            h = steering_direction(model, x_tri, y_tri, *team.own_data.tensors(_device(model)))
            return {f"{index:04d}": tensor for index, tensor in enumerate(h)}

        shared = team.cache.once("direction", round, steer)
        return tuple(shared[name].to(_device(model)) for name in sorted(shared))

    def _push(self, team: Team, known: Knowledge) -> Tensor:
        """trigger=reversed: what is added in this round [d], the same for all colluders."""

        def push() -> dict[str, Tensor]:
            model = known.situation.model
            model.load_state_dict(known.situation.start)
            device = _device(model)
            x_tri, y_tri = _first_batches(team, self.params.trigger_samples).tensors(device)
            if known.phase == "trigger":
                return {"push": trigger_push(model, x_tri, y_tri)}
            rate = 0.08 if self.params.rate is None else self.params.rate
            return {"push": accumulative_push(model, x_tri, y_tri, *team.own_data.tensors(device), rate=rate)[0]}

        return team.cache.once("push", known.situation.round, push)["push"].cpu()


def _first_batches(team: Team, most: int | None) -> ImageSet:
    """What trigger=reversed ascends on: the first batches of the members' local data, `most` samples at most."""
    size = team.config.local.batch_size
    own = [team.local.of(member) for member in trigger_members(team)]
    return ImageSet(
        np.concatenate([part.images[:size] for part in own])[:most],
        np.concatenate([part.labels[:size] for part in own])[:most],
        team.own_data.classes,
    )


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device
