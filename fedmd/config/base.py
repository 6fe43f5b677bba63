"""What every group of settings is made of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


def sentence(error: ValidationError, root: type[BaseModel], place: str = "") -> str:
    """The first thing that is wrong with a `root`, which stands at the key `place`, in one sentence."""
    first = error.errors()[0]
    path = ".".join([*([place] if place else []), *(str(part) for part in first["loc"])])
    key = path or "the configuration"
    kind, value = first["type"], first["input"]
    if kind == "extra_forbidden":
        section = _section_at(root, first["loc"][:-1])
        return f"{key}: unknown key; allowed here: {', '.join(section.model_fields)}."
    if kind == "missing":
        return f"{key}: a value is required."
    if kind == "literal_error":
        return f"{key}: {value!r} is not one of {first['ctx']['expected'].replace(chr(39), '')}."
    if kind == "value_error":
        return f"{path + '.' if path else ''}{first['ctx']['error']}."  # our validators begin with the key
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"{key}: {message}, not {value!r}."


def _section_at(section: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for part in path:
        section = next(_sections(section.model_fields[str(part)].annotation))
    return section


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _sections(argument)
