"""The trigger batch of the accumulative attack without its accumulative phase, so that rounds can be paired."""

from typing import Literal

from pydantic import Field
from torch import nn

from fedmd.attacks.base import Attack, Team
from fedmd.attacks.trigger_batch import TriggerParams, send_trigger
from fedmd.registry import register_attack
from fedmd.types import Phase, StreamBatch


@register_attack("trigger_only")
class TriggerOnly(Attack):
    """Control: the accumulative attack's trigger batch alone, honest until then (Pang et al., NeurIPS 2021)."""

    label = "trigger only"
    modes = ("stream",)
    phases = ("trigger",)
    needs_model = True

    class Params(TriggerParams):
        """Those of the trigger batch."""

        trigger: Literal["fixed", "online"] = Field(
            "fixed", description="fixed: crafted once, at the attack's start; online: crafted anew every round"
        )

    params: Params

    def poison(self, team: Team, batch: StreamBatch, phase: Phase, model: nn.Module) -> StreamBatch:
        """The member's slice of the common trigger batch."""
        return send_trigger(team, self.params, batch, model)
