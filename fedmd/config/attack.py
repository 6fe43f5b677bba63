"""Settings of the colluders."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedmd.config.section import Count, CountOrZero, NonNegative, Section, Share


class AttackConfig(Section):
    """The colluders: which attack, how many of them, and its strength.

    `radius` is for name=accumulative, trigger_only and noise; `steps` and `trigger` for accumulative and trigger_only;
    `gamma` and `variant` for accumulative; `patch_size`, `target` and `poisoned_share` (of a member's batch) for
    backdoor. `stop_error_rise` ends the accumulative phase once the colluders' own estimate of the error rose so far.
    """

    name: Literal["none", "accumulative", "trigger_only", "label_flip", "backdoor", "noise"]
    fraction: Share = 0.0
    radius: Share = 0.2
    steps: Count = 2
    gamma: NonNegative = 1.0
    variant: Literal["reg", "normal", "second"] = "reg"
    trigger: Literal["fixed", "online"] = "fixed"
    stop_error_rise: Annotated[float, Field(gt=0, le=1)] | None = None
    patch_size: Count = 3
    target: CountOrZero = 0
    poisoned_share: Share = 0.5

    @model_validator(mode="after")
    def _accumulates_before_it_stops(self) -> Self:
        if self.name == "trigger_only" and self.stop_error_rise is not None:
            raise ValueError("stop_error_rise must be null for name=trigger_only, which does not accumulate")
        return self
