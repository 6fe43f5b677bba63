"""Settings of mode=update: what clients do at home, how their updates are screened and aggregated.

The mode is an extension of ours; in mode=stream none of this has a meaning.
"""

from typing import Annotated, Literal

from pydantic import Field

from fedmd.config.section import Count, NonNegative, Positive, Section, Share

Minority = Annotated[float, Field(ge=0, lt=0.5)]


class LocalConfig(Section):
    """A client's own training in a round: epochs of SGD over its fixed local data.

    `samples` caps that data, null leaves a client all of its partition.
    """

    epochs: Count = 1
    batch_size: Count = 32
    lr: Positive = 0.05
    momentum: Share = 0.0
    samples: Count | None = None


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
