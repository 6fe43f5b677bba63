"""Settings of the colluders."""

from typing import Annotated, Literal

from pydantic import Field

from fedmd.config.section import Count, NonNegative, Positive, Section, Share


class AttackConfig(Section):
    """The colluders. `stop_error_rise` ends the accumulative phase once their own estimate of the error rose so far."""

    name: Literal[
        "none", "accumulative", "label_flip",
        "sign_flip", "gaussian", "alie", "ipm", "min_max", "min_sum", "replacement", "free_rider",
    ]  # fmt: skip
    fraction: Share = 0.0
    radius: Share = 0.2
    steps: Count = 2
    gamma: NonNegative = 1.0
    variant: Literal["reg", "normal", "second"] = "reg"
    trigger: Literal["fixed", "online"] = "fixed"
    stop_error_rise: Annotated[float, Field(gt=0, le=1)] | None = None
    knowledge: Literal["own", "all"] = "own"
    scale: NonNegative | None = None
    norm_bound: Positive | None = 1.0
    perturbation: Literal["inverse_std", "inverse_unit", "inverse_sign"] = "inverse_std"
