"""Settings of the defence: what is measured, against what, what is done about it, and how updates are aggregated."""

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedmd.config.base import Count, NonNegative, Positive, Section, Share
from fedmd.config.plugin import Chosen, PluginSection

_MIB = 2**20


class DefenseConfig(PluginSection):
    """What is done before the server learns, with its own settings, `params`; see `fedmd.defense.catalogue`.

    A defence of mode=stream sees samples with their scores, by `detector`; that of mode=update has its settings in
    `ScreeningConfig`.
    """

    section: ClassVar[str] = "defense"
    slots: ClassVar[tuple[str, ...]] = ("detector",)
    old_names: ClassVar[Mapping[str, str]] = {"rivals": "baselines"}

    detector: str = Field("discrepancy", description="what is held against the threshold")
    detector_factory: str | None = Field(None, description="detector=custom: package.module:Class")
    detector_params: Chosen = Field(default_factory=Section, description="detector=custom: the class's own")
    stopping: Literal["per_sample", "per_client", "batch_mean"] = Field(
        "per_sample", description="over what it is averaged first: nothing, a client's message, the round's whole batch"
    )
    follow: Share = Field(
        0.0, description="share of the trusted set that recent samples of the stream replace, where it drifts"
    )
    baselines: bool = Field(True, description="score every sample by every detector, for the report")


class ThresholdConfig(PluginSection):
    """The score above which a sample is suspicious; see `fedmd.defense.samples.thresholds`."""

    section: ClassVar[str] = "threshold"


class HistoryConfig(PluginSection):
    """The earlier model that the discrepancy compares with; see `fedmd.defense.history`."""

    section: ClassVar[str] = "history"


class StrategyConfig(PluginSection):
    """The Flower strategy that aggregates in mode=update; see `fedmd.flower.strategies.catalogue`."""

    section: ClassVar[str] = "strategy"


class ScreeningConfig(Section):
    """How defense=discrepancy_screening judges updates, see `fedmd.flower.strategies.screening`.

    `probe` is how many of the trusted images are asked, null for all. An update is acted upon outside limits.
    `threshold` robust: those of the round's clients, `k`, `floor` and `tails` as in `robust_threshold`; fixed: `lower`
    and `upper`, in nats. `loss` screened (a second extension): a candidate's loss on the probe is judged too, as
    an outlier above the round's others by `k` and `floor`.

    `past` (an extension, too) says when the run's own past limits an update, by `past_factor` times the `past_quantile`
    of what was accepted in earlier rounds, see `fedmd.defense.updates.limits.Past`: always, beside the round's own
    limits; alone, in rounds of one or two clients only, which have no outliers. `canary` warns of accumulation before
    its trigger, see `fedmd.defense.updates.canary`.
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
    past: Literal["ignored", "alone", "always"] = "always"
    past_quantile: Annotated[float, Field(gt=0, le=1)] = 0.95
    past_factor: Annotated[float, Field(gt=1)] = 5.0
    canary: bool = False


class QuarantineConfig(Section):
    """Which clients are learned from no longer, and what is kept of them; see `fedmd.defense.evidence`.

    name=evidence quarantines a client whose evidence passes the `limit` that `false_alarms` sets: so many in 1,000
    rounds of an honest client, or fewer. `shift` is how far above 1/2 the chance that a sample of the client outranks a
    trusted one must lie to be looked for; below half of it the evidence falls. A client returns after `rounds` rounds,
    or, with null, when an operator releases it. Of all quarantined clients together, batches of at most `max_rounds`
    rounds and `max_bytes` bytes are kept.
    """

    name: Literal["none", "evidence"] = "none"
    shift: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    false_alarms: Annotated[float, Field(gt=0, lt=1000)] = 0.05
    rounds: Count | None = None
    max_rounds: Count = 100
    max_bytes: Count = 256 * _MIB

    @property
    def limit(self) -> float:
        """In nats: log(1000 / `false_alarms`), as an honest client gets past h once in exp(h) rounds at most."""
        return math.log(1000 / self.false_alarms)
