"""Settings of the model and of training it: before the stream, during it, and at home in mode=update."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedmd.config.base import Count, NonNegative, Positive, Section, Share
from fedmd.config.plugin import PluginSection


class ModelConfig(PluginSection):
    """Which net, see `fedmd.models`; the factory of name=custom may also be a function that returns a Module."""

    section: ClassVar[str] = "model"


class BurnInConfig(Section):
    """Offline training before the stream starts."""

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: Share
    weight_decay: NonNegative
    batchnorm: Literal["running", "precise"] = "precise"


class OnlineConfig(Section):
    """The server's step on a round's batch: SGD without weight decay, a fresh optimizer after burn-in.

    `batchnorm` says where the running statistics come from: the clients' batches (train), burn-in (frozen), the
    server's own trusted set, re-estimated after every step (trusted, an extension of ours), or the clients' batches by
    medians over samples (median, after MedBN). `batchnorm_momentum` is the weight of the newest batch in the first and
    the last case; None leaves the model's own.
    """

    lr: Positive
    momentum: Share
    batchnorm: Literal["train", "frozen", "trusted", "median"] = "trusted"
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)] | None = None


class TrainingConfig(Section):
    """Burn-in and online training."""

    burn_in: BurnInConfig
    online: OnlineConfig


class LocalConfig(Section):
    """A client's own training in a round: epochs of SGD over its fixed local data.

    `samples` caps that data, null leaves a client all of its partition.
    """

    epochs: Count = 1
    batch_size: Count = 20
    lr: Positive = 0.05
    momentum: Share = 0.0
    samples: Count | None = None
