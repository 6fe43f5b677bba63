"""Settings of the colluders."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedmd.config.section import Count, CountOrZero, NonNegative, Positive, Section, Share


class AttackConfig(Section):
    """The colluders: which attack, how many of them, and its strength.

    `radius` is for name=accumulative, trigger_only and noise; `steps` and `trigger` for accumulative and trigger_only;
    `gamma` and `variant` for accumulative; `patch_size`, `target` and `poisoned_share` (of a member's batch, or of its
    local data) for backdoor and replacement. `stop_error_rise` ends the accumulative phase once the colluders' own
    estimate of the error rose so far.

    In mode=update (see `fedmd.attacks.update_attacks`): `knowledge` is whose updates they see, `scale` the attack's
    strength (None: its own default), `norm_bound` (in median honest norms) is for accumulative, `perturbation` for
    min_max and min_sum.
    """

    name: Literal[
        "none", "accumulative", "trigger_only", "label_flip", "backdoor", "noise",
        "sign_flip", "gaussian", "alie", "ipm", "min_max", "min_sum", "replacement", "free_rider",
    ]  # fmt: skip
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
    knowledge: Literal["own", "all"] = "own"
    scale: NonNegative | None = None
    norm_bound: Positive | None = 1.0
    perturbation: Literal["inverse_std", "inverse_unit", "inverse_sign"] = "inverse_std"

    @model_validator(mode="after")
    def _accumulates_before_it_stops(self) -> Self:
        if self.name == "trigger_only" and self.stop_error_rise is not None:
            raise ValueError("stop_error_rise must be null for name=trigger_only, which does not accumulate")
        return self
