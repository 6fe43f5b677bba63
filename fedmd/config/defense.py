"""Settings of the defence: what is measured, against what, what is done about it, and how updates are aggregated."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedmd.config.base import Count, NonNegative, Positive, Section, Share

Minority = Annotated[float, Field(ge=0, lt=0.5)]
_MIB = 2**20


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


class StrategyConfig(Section):
    """The Flower strategy that aggregates, see `fedmd.flower.strategies.catalogue`.

    `malicious_share` is what the defender assumes, not what is true: krum, multikrum and bulyan are told
    f = round(malicious_share * clients a round), fedtrimmedavg cuts that share at either end. `lr` and `momentum` are
    the server's, for fedavgm and fedadam. `bound` is for norm_clipping, `radius` and `iterations` for
    centered_clipping; where null, each round's median norm. `aggregator` names ByzFL's class, made with `options`.
    """

    name: Literal[
        "fedavg", "fedavgm", "fedadam", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan",
        "norm_clipping", "fltrust", "centered_clipping", "byzfl",
    ] = "fedavg"  # fmt: skip
    malicious_share: Minority = 0.2
    lr: Positive = 1.0
    momentum: Share = 0.9
    proximal_mu: NonNegative = 0.1
    bound: Positive | None = None
    radius: Positive | None = None
    iterations: Count = 3
    aggregator: str = "GeometricMedian"
    options: dict[str, int | float | str] = Field(default_factory=dict)


class ScreeningConfig(Section):
    """How defense.name=md_screen judges updates, see `fedmd.flower.strategies.screening`.

    `probe` is how many of the trusted images are asked, null for all. An update is acted upon outside limits.
    `threshold` robust: those of the round's clients, `k`, `floor` and `tails` as in `robust_threshold`; fixed: `lower`
    and `upper`, in nats. `loss` screened (a second extension): a candidate's loss on the probe is judged too, as
    an outlier above the round's others by `k` and `floor`.
    """

    action: Literal["reject", "correct", "weight"] = "reject"
    probe: Count | None = None
    threshold: Literal["robust", "fixed"] = "robust"
    k: Positive = 3.5
    floor: Positive = 0.05
    tails: Literal["both", "upper"] = "both"
    lower: NonNegative = 0.0
    upper: NonNegative = 0.5
    loss: Literal["ignored", "screened"] = "screened"


class QuarantineConfig(Section):
    """Which clients are learned from no longer, and what is kept of them; see `fedmd.defense.evidence`.

    name=evidence quarantines a client whose evidence passes `limit` (nats); an honest client gets there once in
    exp(limit) rounds or less often. `shift` is how far above 1/2 the chance that a sample of the client outranks a
    trusted one must lie to be looked for; below half of it the evidence falls. A client returns after `rounds` rounds,
    or, with null, when an operator releases it. Of all quarantined clients together, batches of at most `max_rounds`
    rounds and `max_bytes` bytes are kept.
    """

    name: Literal["none", "evidence"] = "none"
    shift: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    limit: Positive = 10.0
    rounds: Count | None = None
    max_rounds: Count = 100
    max_bytes: Count = 256 * _MIB
