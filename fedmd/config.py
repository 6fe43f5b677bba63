"""What a run can be told, as frozen records that validate themselves; Hydra composes, this file judges.

`RunConfig.parse` takes Hydra's composed mapping or the JSON text that travels to a client, and either returns a
complete, valid configuration or raises `ConfigError` with one sentence that names the key and what it allows.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class ConfigError(ValueError):
    """A setting the user must change; the message is one sentence, fit to be shown as it is."""


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]


class SplitConfig(Section):
    """Sizes, in samples, of the disjoint parts of the data; the clients' streams share what is left."""

    burn_in: Count
    trusted: Count
    attacker: Count
    test: Count


class PartitionConfig(Section):
    """How the stream part is spread over clients. `alpha` is the Dirichlet concentration; `classes_per_client` is
    for name=shards."""

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


class DataConfig(Section):
    """Where the images come from.

    `path` names files already there, `dataset` a data set on the Hugging Face Hub; `image_column` and
    `label_column` are for name=parquet and huggingface; `image_size` ([height, width]) resizes the images of
    those two and of name=image_folder, null expects one size.
    """

    name: Literal[
        "mnist5k", "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "parquet", "image_folder",
        "huggingface",
    ]  # fmt: skip
    path: str | None = None
    dataset: str | None = None
    image_column: str = "img"
    label_column: str = "label"
    image_size: tuple[Count, Count] | None = None
    augment: Literal["none", "crop", "crop_flip"] = "none"
    splits: SplitConfig
    partition: PartitionConfig

    @model_validator(mode="after")
    def _needs_a_place(self) -> Self:
        if self.name == "parquet" and not self.path:
            raise ValueError("path must name one or more Parquet files for data=parquet")
        if self.name == "image_folder" and not self.path:
            raise ValueError("path must name a folder that has a folder for every class for data=image_folder")
        if self.name == "huggingface" and not self.dataset:
            raise ValueError("dataset must name a data set on the Hugging Face Hub for data=huggingface")
        return self


class ModelConfig(Section):
    """A name from `fedmd.models.MODELS`, or name=custom with `factory="package.module:function"`."""

    name: str
    width: Count = 16
    factory: str | None = None


class BurnInConfig(Section):
    """Offline training before the stream starts."""

    epochs: Count
    batch_size: Count
    lr: Positive
    momentum: Share
    weight_decay: NonNegative
    batchnorm: Literal["running", "precise"] = "running"


class OnlineConfig(Section):
    """The server's step on a round's batch: SGD without weight decay, a fresh optimizer after burn-in.

    `batchnorm` says where the running statistics come from: the clients' batches (train), burn-in (frozen), or the
    server's own trusted set, re-estimated after every step (trusted, an extension of ours). `batchnorm_momentum` is the
    weight of the newest batch in the first case; None leaves the model's own.
    """

    lr: Positive
    momentum: Share
    batchnorm: Literal["train", "frozen", "trusted"] = "train"
    batchnorm_momentum: Annotated[float, Field(gt=0, le=1)] | None = None


class TrainingConfig(Section):
    """Burn-in and online training."""

    burn_in: BurnInConfig
    online: OnlineConfig


class ShiftConfig(Section):
    """How the stream's world differs from the one burn-in saw; see `fedmd.data.shift`.

    `classes` (labels that burn-in never sees) is for name=classes, `angle` (degrees counter-clockwise) for
    name=rotation, `corruption` and `severity` (1 to 5) for name=corruption.
    """

    name: Literal["none", "classes", "rotation", "corruption"] = "none"
    classes: tuple[CountOrZero, ...] | None = None
    angle: float = 45.0
    corruption: Literal["noise", "blur", "contrast"] = "contrast"
    severity: Annotated[int, Field(ge=1, le=5)] = 5

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


class DefenseConfig(Section):
    """What happens to a batch before the server learns from it.

    `detector` and `stopping` are for name=dsc and drop: what is held against the threshold, and over what it is
    averaged first (nothing, a client's message, the round's whole batch).
    """

    name: Literal["none", "at", "dsc", "drop", "frozen"]
    step_size: Positive = 0.02
    radius: Share = 0.2
    max_steps: Count = 10
    stopping: Literal["per_sample", "per_client", "batch_mean"] = "per_sample"
    detector: Literal["discrepancy", "historical_loss", "current_loss"] = "discrepancy"


class ThresholdConfig(Section):
    """The discrepancy (nats) above which a sample is suspicious."""

    name: Literal["published", "quantile", "fixed"]
    start: NonNegative = 0.5
    slope: NonNegative = 0.02
    fpr: Share = 0.05
    value: NonNegative = 0.5


class HistoryConfig(Section):
    """The earlier model that the discrepancy compares with."""

    name: Literal["snapshot", "lag", "ema"]
    epoch: Count = 1
    lag: Count = 10
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.9


class FederationConfig(Section):
    """Who takes part. One node may answer for many clients; `nodes` null means one node a client."""

    clients: Count
    clients_per_round: Count | None = None
    nodes: Count | None = None
    round_timeout_s: Positive = 120.0

    @model_validator(mode="after")
    def _sampled_from_clients(self) -> Self:
        if self.clients_per_round is not None and self.clients_per_round > self.clients:
            raise ValueError(f"clients_per_round must be at most federation.clients={self.clients}")
        if self.nodes is not None and self.nodes > self.clients:
            raise ValueError(f"nodes must be at most federation.clients={self.clients}")
        return self

    @property
    def node_count(self) -> int:
        """Number of Flower nodes a simulation starts for this federation."""
        return self.nodes or self.clients

    @property
    def sampled_clients(self) -> int:
        """Clients asked in each round."""
        return self.clients_per_round or self.clients


class RuntimeConfig(Section):
    """The machine. workers, cache_dir, progress and tensorboard never change a result; the others may, in the last
    digits, and evaluate_every decides which rounds have an accuracy."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["fp32", "bf16"]
    channels_last: bool
    threads: Count
    workers: Count | None = None
    client_cpus: Positive = 1
    client_gpus: NonNegative = 0
    evaluate_every: Count = 1
    cache_dir: str | None = None
    progress: bool = True
    tensorboard: bool = False


class RunConfig(Section):
    """One federation from burn-in to its last round. Same config, same numbers."""

    seed: CountOrZero
    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    stream: StreamConfig
    attack: AttackConfig
    defense: DefenseConfig
    threshold: ThresholdConfig
    history: HistoryConfig
    federation: FederationConfig
    runtime: RuntimeConfig

    @model_validator(mode="after")
    def _history_was_taken(self) -> Self:
        if self.history.name == "snapshot" and self.history.epoch > self.training.burn_in.epochs:
            raise ValueError(
                f"history.epoch must be between 1 and training.burn_in.epochs={self.training.burn_in.epochs}, "
                f"not {self.history.epoch}"
            )
        return self

    @classmethod
    def parse(cls, source: str | dict[str, Any]) -> Self:
        """From JSON text or a mapping. Raises `ConfigError` naming the first wrong key."""
        try:
            mapping = json.loads(source) if isinstance(source, str) else source
            return cls.model_validate(mapping)
        except json.JSONDecodeError as error:
            raise ConfigError(f"the configuration is not valid JSON: {error}.") from error
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from error

    def to_json(self) -> str:
        """The text that `parse` reads back to an equal configuration."""
        return self.model_dump_json()


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "the configuration"
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        section = _section_at(first["loc"][:-1])
        return f"{key}: unknown key; allowed here: {', '.join(section.model_fields)}."
    if kind == "missing":
        return f"{key}: a value is required."
    if kind == "literal_error":
        return f"{key}: {value!r} is not one of {first['ctx']['expected'].replace(chr(39), '')}."
    if kind == "value_error":
        return f"{key + '.' if first['loc'] else ''}{first['ctx']['error']}."  # our validators begin with the key
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {message}, not {value!r}."


def _section_at(path: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = RunConfig
    for part in path:
        section = next(_sections(section.model_fields[str(part)].annotation))
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
