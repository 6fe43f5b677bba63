"""Settings of the colluders."""

from typing import Annotated, Literal

from pydantic import Field

from fedmd.config.section import Count, NonNegative, Section, Share


class AttackConfig(Section):
    """The colluders. `stop_error_rise` ends the accumulative phase once their own estimate of the error rose so far."""

    name: Literal["none", "accumulative"]
    fraction: Share = 0.0
    radius: Share = 0.2
    steps: Count = 2
    gamma: NonNegative = 1.0
    variant: Literal["reg", "normal", "second"] = "reg"
    trigger: Literal["fixed", "online"] = "fixed"
    stop_error_rise: Annotated[float, Field(gt=0, le=1)] | None = None
