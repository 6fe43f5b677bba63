"""What a deployed client's own machine says: the SuperNode's --node-config. The server has no say in it."""

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError

from fedmd.config.base import ConfigError, Count, CountOrZero, Section


def _height_width(text: object) -> object:
    """`28x28` as (28, 28)."""
    return tuple(text.split("x")) if isinstance(text, str) else text


def _names(text: object) -> object:
    return tuple(name.strip() for name in text.split(",")) if isinstance(text, str) else text


def _hyphens(name: str) -> str:
    return name.replace("_", "-")


class NodeConfig(Section):
    """The client this node speaks for, and where its samples come from.

    `stream` is parquet:FILE_OR_FOLDER, folder:FOLDER or python:MODULE:FUNCTION; `position` a file that remembers which
    samples were sent. Columns of Parquet files that are not named are found. `max_samples` bounds one answer.
    `red_team` lets the node attack as the server's `attack` section says, for tests of the defence: such a node acts on
    the server's configuration.

    In mode=update the node trains on the first `max_samples` of its samples, the same in every round, for at most
    `max_epochs` a round; `model_factory` is its own MODULE:FUNCTION where the server's model.name is custom.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=_hyphens, populate_by_name=True)

    client: CountOrZero
    stream: Annotated[str, Field(pattern=r"^(parquet|folder|python):.+")]
    position: str
    max_samples: Count = 4096
    image_column: str | None = None
    label_column: str | None = None
    image_size: Annotated[tuple[Count, Count] | None, BeforeValidator(_height_width)] = None
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(_names)] = None
    red_team: bool = False
    max_epochs: Count = 20
    model_factory: Annotated[str, Field(pattern=r"^[^:]+:[^:]+$")] | None = None

    @classmethod
    def parse(cls, node_config: dict[str, Any]) -> Self:
        """From Flower's node_config. Raises ConfigError naming the first wrong key."""
        try:
            return cls.model_validate(node_config)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "node-config"
            raise ConfigError(f"node-config {key}: {first['msg'][0].lower()}{first['msg'][1:]}.") from error
