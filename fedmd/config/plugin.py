"""A section whose `name` chooses a plug-in, and whose other keys are that plug-in's.

    attack: {name: alie, fraction: 0.2, scale: 1.5}   ->   AttackConfig(name="alie", fraction=0.2, params=Alie.Params)

A built-in's (or an installed package's) own keys stand beside the common ones; those of name=custom are under `params`,
because nobody knows them before the factory is imported. `to_json` writes what was read.
"""

from collections.abc import Callable, Iterable, Mapping
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
from fedmd.config.base import ConfigError, Mode, OnlyIn, Section, sentence

_CHOOSING = ("name", "factory", "params")


class Unresolved(Section):
    """Settings of a plug-in that was not looked up, as they came."""

    model_config = ConfigDict(extra="allow")


Chosen = SerializeAsAny[Section]  # the validated settings of the plug-in that was chosen


class PluginSection(Section):
    """See the module. A subclass says which `section` it is, and has the fields that all plug-ins of its kind share.

    A second plug-in in the same section is a slot: `slots = ("detector",)` with fields `detector: str = "discrepancy"`,
    `detector_factory: str | None = None` and `detector_params: Chosen`. Its own settings are always under
    `detector_params`. A plug-in's `defaults` may name another detector.
    """

    section: ClassVar[str]  # a key of `fedmd.registry.REGISTRIES`, as the slots are
    slots: ClassVar[tuple[str, ...]] = ()
    old_names: ClassVar[Mapping[str, str]] = {}  # of keys, still read

    name: str
    factory: str | None = None
    params: Chosen

    @classmethod
    def of(cls, given: "str | Mapping[str, object] | Self") -> Self:
        """From a name, or a name and settings as in a configuration. Raises ConfigError naming the first wrong key."""
        if isinstance(given, cls):
            return given
        try:
            return cls.model_validate({"name": given} if isinstance(given, str) else given)
        except ValidationError as error:
            raise ConfigError(sentence(error, cls, cls.section)) from error

    @classmethod
    def common_fields(cls) -> list[str]:
        """The keys that all plug-ins of the kind share, without those that choose one."""
        return [field for field in cls.model_fields if field not in _CHOOSING]

    @classmethod
    def foreign_keys(cls, given: Mapping[str, Any]) -> list[str]:
        """The keys of `given` that the plug-in which it chooses does not have; none where it chooses none."""
        own: Iterable[str] = ()  # those of a custom one are in `params`
        if given.get("name") != registry.CUSTOM:
            try:
                own = registry.REGISTRIES[cls.section].resolve(given["name"]).Params.model_fields
            except (KeyError, ValueError):
                return []
        return [key for key in given if key not in (*cls.model_fields, *cls.old_names, *own)]

    @property
    def plugin(self) -> "type[registry.Plugin]":
        """The class that was chosen. Raises ConfigError where `resolving` kept it from being looked up."""
        return self._chosen(self.name, self.factory, self.params, self.section)

    def make(self) -> Any:
        """An instance of it."""
        return self.plugin(self.params)

    def make_slot(self, slot: str) -> Any:
        """An instance of the plug-in in a slot."""
        name, factory, params = (getattr(self, key) for key in (slot, f"{slot}_factory", f"{slot}_params"))
        return self._chosen(name, factory, params, slot)(params)

    def _chosen(self, name: str, factory: str | None, params: Section, kind: str) -> "type[registry.Plugin]":
        if isinstance(params, Unresolved):
            key = "name" if kind == self.section else kind
            raise ConfigError(f"{self.section}.{key}: {name} was not looked up in this process.")
        return registry.REGISTRIES[kind].resolve(name, factory)

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
        given = {cls.old_names.get(key, key): value for key, value in given.items()}
        if isinstance(given.get("params"), Section):
            return handler(given)
        common = {key: value for key, value in given.items() if key in cls.model_fields}
        own = {key: value for key, value in given.items() if key not in cls.model_fields}
        name, factory = common["name"], common.get("factory")
        custom = name == registry.CUSTOM
        if (own and custom) or ("params" in common and not custom):
            raise ValueError(f"{next(iter([*own, 'params']))}: unknown key; allowed here: {_listed(cls.model_fields)}")
        if factory is not None and not custom:
            raise ValueError(f"factory: is for name=custom, not for name={name}")
        if custom:
            own = dict(common.get("params") or {})
        place, beside = (("params",), []) if custom else ((), ["name", *cls.common_fields()])
        plugin, params = _choose(cls.section, name, factory, own, place, beside)
        if plugin is not None:
            common = {**plugin.defaults, **common, "name": registry.CUSTOM if custom else plugin.name}
        for slot in cls.slots:
            slotted, key = common.get(slot, cls.model_fields[slot].default), f"{slot}_params"
            if isinstance(slotted, str) and not isinstance(common.get(key), Section):
                of_slot = dict(common.get(key) or {})
                found, common[key] = _choose(slot, slotted, common.get(f"{slot}_factory"), of_slot, (key,), [])
                common[slot] = slotted if found is None or slotted == registry.CUSTOM else found.name
        return handler({**common, "params": params})

    @model_serializer
    def _flat(self, info: SerializationInfo) -> dict[str, Any]:
        common = {field: getattr(self, field) for field in self.common_fields()}
        for slot in self.slots:
            if getattr(self, slot) != registry.CUSTOM:
                del common[f"{slot}_factory"]
            if params := common.pop(f"{slot}_params").model_dump(mode=info.mode):
                common[f"{slot}_params"] = params
        own = self.params.model_dump(mode=info.mode)
        if self.name == registry.CUSTOM:
            return {"name": self.name, "factory": self.factory, **common, "params": own}
        return {"name": self.name, **common, **own}


def _choose(
    kind: str, name: str, factory: object, own: dict[str, Any], place: tuple[str, ...], common: list[str]
) -> "tuple[type[registry.Plugin] | None, Section]":
    """The class that `name` chooses and its Params, made of `own`, which stands at `place` beside the `common` keys.

    No class, and the settings as they came, where `resolving` does not reach so far. Raises ValueError that begins with
    the key, or pydantic's own.
    """
    custom = name == registry.CUSTOM
    if registry.reach() == "nothing" or (custom and registry.reach() != "anything"):
        return None, Unresolved(**own)
    keys = (kind, f"{kind}_factory") if place == (f"{kind}_params",) else ("name", "factory")
    plugin = registry.REGISTRIES[kind].resolve(name, factory, keys=keys)
    if unknown := [key for key in own if key not in plugin.Params.model_fields]:
        allowed = [*common, *plugin.Params.model_fields]
        raise ValueError(f"{'.'.join([*place, unknown[0]])}: unknown key; allowed here: {_listed(allowed)}")
    try:
        return plugin, plugin.Params.model_validate(own)
    except ValidationError as error:
        raise _within(error, place) from error


def _listed(keys: Any) -> str:
    return ", ".join(keys) or "none"


def _within(error: ValidationError, prefix: tuple[str, ...]) -> ValidationError:
    """The same error, at places that begin with `prefix`."""
    lines = [
        InitErrorDetails(type=line["type"], loc=(*prefix, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))
        for line in error.errors()
    ]
    return ValidationError.from_exception_data(error.title, lines)
