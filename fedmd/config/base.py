"""What every group of settings is made of."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["stream", "update"]


class ConfigError(ValueError):
    """A setting the user must change; the message is one sentence, fit to be shown as it is."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True)
class OnlyIn:
    """Marks a setting that has a meaning in one mode: `radius: Annotated[Share, STREAM_ONLY] = 0.3`.

    In the other mode it must have its default value.
    """

    mode: Mode


STREAM_ONLY = OnlyIn("stream")
UPDATE_ONLY = OnlyIn("update")

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
