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
    """The Flower strategy that aggregates, see `fedmd.flower.strategies`.

    `malicious_share` is what the defender assumes, not what is true: krum, multikrum and bulyan are told
    f = round(malicious_share * clients a round), fedtrimmedavg cuts that share at either end, byzfl's aggregators get f
    too. `lr` and `momentum` are the server's, for fedavgm (both), fedadam and centered_clipping's momentum.
    """

    name: Literal[
        "fedavg", "fedavgm", "fedadam", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"
    ] = "fedavg"  # fmt: skip
    malicious_share: Minority = 0.2
    lr: Positive = 1.0
    momentum: Share = 0.9
    proximal_mu: NonNegative = 0.1
