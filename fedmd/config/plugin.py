"""A section whose `name` chooses a plug-in, and whose other keys are that plug-in's.

    attack: {name: alie, fraction: 0.2, scale: 1.5}   ->   AttackConfig(name="alie", fraction=0.2, params=Alie.Params)

A built-in's (or an installed package's) own keys stand beside the common ones; those of name=custom are under `params`,
because nobody knows them before the factory is imported. `to_json` writes what was read.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from pydantic import (
    ConfigDict,
    SerializationInfo,
    SerializeAsAny,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails

from fedmd import registry  # the module: either of the two may be imported first
from fedmd.config.base import ConfigError, Mode, OnlyIn, Section

_CHOOSING = ("name", "factory", "params")


class Unresolved(Section):
    """Settings of a plug-in that was not looked up, as they came."""

    model_config = ConfigDict(extra="allow")


class PluginSection(Section):
    """See the module. A subclass says which `section` it is, and has the fields that all plug-ins of its kind share."""

    section: ClassVar[str]  # a key of `fedmd.registry.REGISTRIES`

    name: str
    factory: str | None = None
    params: SerializeAsAny[Section]

    @classmethod
    def common_fields(cls) -> list[str]:
        """The keys that all plug-ins of the kind share, without those that choose one."""
        return [field for field in cls.model_fields if field not in _CHOOSING]

    @property
    def plugin(self) -> "type[registry.Plugin]":
        """The class that was chosen. Raises ConfigError where `resolving` kept it from being looked up."""
        if isinstance(self.params, Unresolved):
            raise ConfigError(f"{self.section}.name: {self.name} was not looked up in this process.")
        return registry.REGISTRIES[self.section].resolve(self.name, self.factory)

    def make(self) -> Any:
        """An instance of it."""
        return self.plugin(self.params)

    def check_mode(self, mode: Mode) -> None:
        """Raise ValueError naming the key that is for the other mode."""
        if isinstance(self.params, Unresolved):
            return
        other: Mode = "update" if mode == "stream" else "stream"
        if mode not in self.plugin.modes:
            raise ValueError(f"{self.section}.name: {self.name} is for mode={other}, not for mode={mode}")
        for section in (self, self.params):
            for key, field in type(section).model_fields.items():
                if OnlyIn(other) in field.metadata and getattr(section, key) != field.default:
                    raise ValueError(f"{self.section}.{key}: is for mode={other}, not for mode={mode}")

    @model_validator(mode="wrap")
    @classmethod
    def _resolve(cls, given: Any, handler: Callable[[Any], Self]) -> Self:
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            return handler(given)
        if isinstance(given.get("params"), Section):
            return handler(given)
        common = {key: value for key, value in given.items() if key in cls.model_fields}
        own = {key: value for key, value in given.items() if key not in cls.model_fields}
        nested = common["name"] == registry.CUSTOM
        prefix = ("params",) if nested else ()
        if nested and not own:
            own = dict(common.pop("params", None) or {})
        elif nested or "params" in common:
            raise ValueError(f"{next(iter([*own, 'params']))}: unknown key; allowed here: {_listed(cls.model_fields)}")
        elif common.get("factory") is not None:
            raise ValueError(f"factory: is for name=custom, not for name={common['name']}")
        if registry.reach() == "nothing" or (nested and registry.reach() != "anything"):
            return handler({**common, "params": Unresolved(**own)})
        plugin = registry.REGISTRIES[cls.section].resolve(common["name"], common.get("factory"))
        if unknown := [key for key in own if key not in plugin.Params.model_fields]:
            allowed = (
                plugin.Params.model_fields if nested else ["name", *cls.common_fields(), *plugin.Params.model_fields]
            )
            raise ValueError(f"{'.'.join([*prefix, unknown[0]])}: unknown key; allowed here: {_listed(allowed)}")
        try:
            params = plugin.Params.model_validate(own)
        except ValidationError as error:
            raise _within(error, prefix) from error
        name = common["name"] if nested else plugin.name
        return handler({**plugin.defaults, **common, "name": name, "params": params})

    @model_serializer
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        common = {field: getattr(self, field) for field in self.common_fields()}
        own = self.params.model_dump(mode=info.mode)
        if self.name == registry.CUSTOM:
            return {"name": self.name, "factory": self.factory, **common, "params": own}
        return {"name": self.name, **common, **own}


def _listed(keys: Any) -> str:
    return ", ".join(keys) or "none"


def _within(error: ValidationError, prefix: tuple[str, ...]) -> ValidationError:
    """The same error, at places that begin with `prefix`."""
    lines = [
        InitErrorDetails(type=line["type"], loc=(*prefix, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))
        for line in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, lines)
