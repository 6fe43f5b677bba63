"""Settings of the images, their parts, and the streams that clients send."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from fedmd.config.base import Count, CountOrZero, Positive, Section
from fedmd.config.plugin import PluginSection


def _part(value: object) -> int | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 < value < 1:
            return value
        if value >= 1 and (isinstance(value, int) or value.is_integer()):  # which infinity is not
            return int(value)
    raise PydanticCustomError("part", "must be a number of samples, or a share of them between 0 and 1")


Part = Annotated[int | float, PlainValidator(_part)]


class SplitConfig(Section):
    """The disjoint parts of the data, each a number of samples or, below 1, a share of all of them.

    The clients' streams share what is left.
    """

    burn_in: Part
    trusted: Part
    attacker: Part
    test: Part

    def sizes(self, samples: int) -> dict[str, int]:
        """The parts in samples, of so many in all: a share is rounded, and is at least one sample."""
        parts = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: part if part >= 1 else max(1, round(part * samples)) for name, part in parts.items()}


class PartitionConfig(Section):
    """How the stream part is spread over clients.

    `alpha` is the Dirichlet concentration; `classes_per_client` is for name=shards.
    """

    name: Literal["iid", "dirichlet", "shards"]
    alpha: Positive | None = None
    classes_per_client: Count | None = None

    @model_validator(mode="after")
    def _needs_alpha(self) -> Self:
        if self.name == "dirichlet" and self.alpha is None:
            raise ValueError("alpha must be a positive number for name=dirichlet")
        if self.name == "shards" and self.classes_per_client is None:
            raise ValueError("classes_per_client must be a number of classes for name=shards")
        return self


class DataConfig(PluginSection):
    """Where the images come from, see `fedmd.data.sources`, and how they are divided. Only burn-in is augmented."""

    section: ClassVar[str] = "data"

    augment: Literal["none", "crop", "crop_flip"] = Field("none", description="none | crop | crop_flip; burn-in only")
    splits: SplitConfig = Field(description="samples, or shares; the streams take the rest")
    partition: PartitionConfig = Field(
        PartitionConfig(name="iid"),
        description="iid | dirichlet (alpha: concentration) | shards (classes_per_client)",
    )


class ShiftConfig(Section):
    """How the stream's images differ from those that burn-in saw; see `fedmd.data.shift`.

    `classes` (labels that burn-in never sees) is for name=classes, `angle` (degrees counter-clockwise) for
    name=rotation, `corruption` and `severity` (1 to 5) for name=corruption. `trusted` says whether the server's own
    images are from after the shift, or from before it, as those of burn-in.
    """

    name: Literal["none", "classes", "rotation", "corruption"] = "none"
    classes: tuple[CountOrZero, ...] | None = None
    angle: float = 45.0
    corruption: Literal["noise", "blur", "contrast"] = "contrast"
    severity: Annotated[int, Field(ge=1, le=5)] = 5
    trusted: Literal["after", "before"] = "after"

    @model_validator(mode="after")
    def _needs_classes(self) -> Self:
        if self.name == "classes" and not self.classes:
            raise ValueError("classes must list the labels that burn-in never sees for name=classes")
        return self


class StreamConfig(Section):
    """Phases, in rounds, and what a client sends. `batch_size` is per client and round."""

    source: Literal["fresh", "published_replay"]
    batch_size: Count
    clean_rounds: CountOrZero
    accumulative_rounds: CountOrZero
    trigger_rounds: CountOrZero
    recovery_rounds: CountOrZero
    shift: ShiftConfig = ShiftConfig()

    @model_validator(mode="after")
    def _replays_what_burn_in_saw(self) -> Self:
        if self.source == "published_replay" and self.shift.name != "none":
            raise ValueError("shift.name must be none for source=published_replay, which sends burn-in images")
        return self

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.rounds == 0:
            raise ValueError("clean_rounds, accumulative_rounds, trigger_rounds and recovery_rounds must not all be 0")
        return self

    @property
    def rounds(self) -> int:
        """Rounds of the whole run."""
        return self.clean_rounds + self.accumulative_rounds + self.trigger_rounds + self.recovery_rounds
