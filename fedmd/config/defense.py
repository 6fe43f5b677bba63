"""Settings of the defence: what is measured, against what, and what is done about it."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedmd.config.section import Count, NonNegative, Positive, Section, Share


class DefenseConfig(Section):
    """What happens to a batch before the server learns from it; md_screen is for mode=update, see `ScreeningConfig`.

    `detector` and `stopping` are for name=dsc and drop: what is held against the threshold, and over what it is
    averaged first (nothing, a client's message, the round's whole batch). name=trim ranks by `detector`, which is the
    current loss there unless told. `rivals` has every sample scored by every detector, for the report.
    """

    name: Literal["none", "at", "dsc", "drop", "clip", "trim", "frozen", "md_screen"]
    step_size: Positive = 0.02
    radius: Share = 0.2
    max_steps: Count = 10
    stopping: Literal["per_sample", "per_client", "batch_mean"] = "per_sample"
    detector: Literal[
        "discrepancy", "historical_loss", "current_loss", "confidence",
        "pixel_distance", "kernel_density", "lid", "mahalanobis",
    ] = "discrepancy"  # fmt: skip
    clip_norm: Positive = 1.0
    trim_share: Share = 0.2
    rivals: bool = True

    @model_validator(mode="before")
    @classmethod
    def _trims_by_loss(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") == "trim":
            return {"detector": "current_loss", **values}
        return values


class ThresholdConfig(Section):
    """The discrepancy (nats) above which a sample is suspicious; `path` is the file of `fedmd calibrate`."""

    name: Literal["published", "quantile", "fixed", "calibrated"]
    start: NonNegative = 0.5
    slope: NonNegative = 0.02
    fpr: Share = 0.05
    value: NonNegative = 0.5
    path: str | None = None

    @model_validator(mode="after")
    def _needs_a_file(self) -> Self:
        if self.name == "calibrated" and not self.path:
            raise ValueError("path must name a file that fedmd calibrate wrote, for threshold=calibrated")
        return self


class HistoryConfig(Section):
    """The earlier model that the discrepancy compares with; for lag_and_start, of mode=update, two of them."""

    name: Literal["snapshot", "lag", "ema", "lag_and_start"]
    epoch: Count = 1
    lag: Count = 10
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9
