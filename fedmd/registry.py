"""Plug-ins by name: attacks, defences, detectors, thresholds, histories, strategies, models and data sources.

How to register one: a subclass of its kind's base class, with its own `Params`, and a decorator.

    from fedmd.attacks.base import Attack
    from fedmd.registry import register_attack

    @register_attack("reverse")
    class Reverse(Attack):
        \"\"\"The honest update, turned round.\"\"\"      # the line that `fedmd list` and the YAML show

        modes = ("update",)                           # what it is for; both unless told
        label = "reverse"                             # its name in tables and figures; the registered name unless told

        class Params(Section):                        # its settings, here attack.scale; comments become the YAML's
            scale: Positive = Field(1.0, description="times the honest update")

        params: Params                                # the validated instance, for the type checker

        def update(self, team, known):
            return -self.params.scale * known.own

Where it is found:
- fedmd's own: every module of the kind's catalogue packages is imported, so a file dropped into the folder is
  registered. Its YAML, one option of the Hydra group, is made by `python -m fedmd.runs.options`.
- An installed package's: an entry point, `[project.entry-points."fedmd.attacks"]` with `reverse = "package:Reverse"`;
  no decorator is needed. The groups are fedmd.attacks, .defenses, .detectors, .thresholds, .histories, .strategies,
  .models and .data.
- A module's, on the spot: `attack=custom attack.factory=package.module:Reverse attack.params.scale=3`.
- In this process: the decorator alone, for tests and notebooks (worker processes do not see it).

A kind's configuration is a `fedmd.config.plugin.PluginSection` with the settings that all of the kind share; those of
the chosen class are `config.attack.params`, and `config.attack.make()` is an instance.

What a class may say beside `modes`, `label` and `Params`: `defaults`, its own defaults for the settings that all of its
kind have (`{"fraction": 0.0}`), and `check_run(params, run)`, which raises ValueError("key: ...") where the rest of a
run's configuration does not fit; `key` is a full dotted one.

Whoever parses a configuration that somebody else wrote says how far it may reach: see `resolving`.
"""

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Literal, TypeVar

from fedmd.config.base import ConfigError, Mode, Section

CUSTOM = "custom"
Reach = Literal["anything", "installed", "nothing"]
_reach: ContextVar[Reach] = ContextVar("reach", default="anything")


class Plugin:
    """What every plug-in is: see the module's docstring. An instance is made of its validated `params`."""

    name: ClassVar[str] = ""  # as registered
    label: ClassVar[str] = ""
    modes: ClassVar[tuple[Mode, ...]] = ("stream", "update")
    defaults: ClassVar[Mapping[str, object]] = {}

    class Params(Section):
        """No settings of its own."""

    params: Section

    def __init__(self, params: Section) -> None:
        self.params = params

    @classmethod
    def check_run(cls, params: Any, run: Any) -> None:
        """Raise ValueError where `params` and the rest of the RunConfig `run` do not fit together."""

    @classmethod
    def unused(cls, params: Any, mode: Mode) -> Mapping[str, str]:
        """Those of its own settings that change nothing in `mode`, beside the others in `params`, with the reason."""
        return {}

    @classmethod
    def shared_settings(cls, of_the_kind: Sequence[str]) -> Sequence[str]:
        """Which of the settings that all of its kind share concern it: those that its YAML has. All unless told."""
        return of_the_kind

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]


AnyPlugin = TypeVar("AnyPlugin", bound=type[Plugin])


@dataclass(frozen=True)
class Listed:
    """One line of `fedmd list`; `origin` is built-in, or the package it comes from."""

    name: str
    modes: tuple[Mode, ...]
    summary: str
    origin: str


@contextmanager
def resolving(reach: Reach) -> Iterator[None]:
    """How far names in a configuration may reach while this lasts.

    anything: a `factory` is imported. installed: built-ins and installed entry points only, for a node whose server
    wrote the configuration. nothing: no plug-in is looked up, its settings stay as they came, unvalidated; for a
    process that needs none of them and must not pay for importing PyTorch.
    """
    token = _reach.set(reach)
    try:
        yield
    finally:
        _reach.reset(token)


def reach() -> Reach:
    """What `resolving` set."""
    return _reach.get()


def load(place: object, key: str) -> Any:
    """The object at `place`, "package.module:name", which the setting `key` names.

    Raises ConfigError where it cannot be had, and, before anything is imported, where `resolving` forbids it.
    """
    if reach() != "anything":
        raise ConfigError(f"{key}: names code to import; here only built-in and installed plug-ins are taken.")
    module, colon, name = place.partition(":") if isinstance(place, str) else ("", "", "")
    if not (module and colon and name):
        raise ConfigError(f'{key}: must be "package.module:name", not {place!r}.')
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{key}: cannot import {module} ({error}).") from error
    except AttributeError as error:
        raise ConfigError(f"{key}: {module} has no {name}.") from error


class Registry:
    """The plug-ins of one kind.

    Args:
        kind: in words, for sentences ("attack", "data source").
        group: the group of entry points.
        base: the class that plug-ins of the kind are subclasses of, as "module:name".
        packages: the catalogue: modules, and packages whose every module, imported to find fedmd's own.
    """

    def __init__(self, kind: str, group: str, base: str, *packages: str) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._packages = packages
        self._plugins: dict[str, type[Plugin]] = {}
        self._aliases: dict[str, str] = {}
        self._complete = False

    def register(self, name: str, *aliases: str) -> Callable[[AnyPlugin], AnyPlugin]:
        """Class decorator: the class is the plug-in called `name`, and what the `aliases` stand for.

        Raises:
            ValueError: the name is another class's already, or no name.
        """

        def add(plugin: AnyPlugin) -> AnyPlugin:
            known = self._plugins.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (plugin.__module__, plugin.__qualname__):
                raise ValueError(f"there is a {self.kind} called {name!r} already: {known.__module__}")
            if name == CUSTOM or not name.isidentifier():
                raise ValueError(f"a {self.kind} cannot be called {name!r}")
            plugin.name, plugin.label = name, plugin.__dict__.get("label", "") or name
            self._plugins[name] = plugin
            self._aliases.update(dict.fromkeys(aliases, name))
            return plugin

        return add

    def base(self) -> Any:
        """The class that plug-ins of the kind are subclasses of."""
        module, _, name = self._base.partition(":")
        return getattr(importlib.import_module(module), name)

    def names(self) -> list[str]:
        """What `resolve` knows, aliases left out, sorted: fedmd's own, then those of installed packages."""
        self._import_catalogue()
        return [*sorted(self._plugins), *sorted(set(self.installed()) - set(self._plugins))]

    def aliases(self) -> dict[str, str]:
        """Old name to name."""
        self._import_catalogue()
        return dict(self._aliases)

    def installed(self) -> dict[str, EntryPoint]:
        """The entry points of installed packages by name; nothing is imported."""
        return dict(_entry_points(self.group, tuple(sys.path)))

    def is_only_here(self, name: str) -> bool:
        """Whether `name` was registered in this process, by a decorator that another process may not come across."""
        plugin = self._plugins.get(self._aliases.get(name, name))
        return plugin is not None and not plugin.__module__.startswith("fedmd.") and name not in self.installed()

    def own(self) -> list[type[Plugin]]:
        """fedmd's own, by name."""
        self._import_catalogue()
        return [plugin for _, plugin in sorted(self._plugins.items()) if plugin.__module__.startswith("fedmd.")]

    def resolve(
        self, name: str, factory: object = None, *, keys: tuple[str, str] = ("name", "factory")
    ) -> type[Plugin]:
        """The class called `name`, or what `factory` names for name=custom.

        Raises ValueError whose text begins with the one of the two `keys` that is wrong, without a full stop.
        """
        if name == CUSTOM:
            try:
                return self._checked(load(factory, keys[1]), f"{keys[1]}: {factory}")
            except ConfigError as error:
                raise ValueError(str(error).removesuffix(".")) from error
        self._import_catalogue()
        canonical = self._aliases.get(name, name)
        if canonical in self._plugins:
            return self._plugins[canonical]
        if (point := self.installed().get(name)) is None:
            *most, last = [*self.names(), CUSTOM]
            raise ValueError(f"{keys[0]}: {name!r} is not one of {', '.join(most)} or {last}")
        try:
            plugin = self._checked(point.load(), f"{keys[0]}: {name}, {point.value},")
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{keys[0]}: {name}, of an installed package, cannot be imported ({error})") from error
        return self.register(name)(plugin)

    def listed(self) -> list[Listed]:
        """All there is. An installed one that cannot be loaded says so in its summary."""
        found = []
        for name in self.names():
            point = self.installed().get(name)
            origin = "built-in" if point is None else point.dist.name if point.dist else point.value
            try:
                plugin = self.resolve(name)
            except ValueError as error:
                found.append(Listed(name, (), str(error).partition(": ")[2], origin))
                continue
            if point is None and not plugin.__module__.startswith("fedmd."):
                origin = plugin.__module__
            found.append(Listed(name, plugin.modes, plugin.summary(), origin))
        return found

    def _import_catalogue(self) -> None:
        if self._complete:
            return
        self._complete = True  # before the imports: a module of the catalogue may ask for a name
        for name in self._packages:
            package = importlib.import_module(name)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                importlib.import_module(f"{name}.{module.name}")

    def _checked(self, found: Any, said: str) -> type[Plugin]:
        """`found` as a plug-in of the kind: a subclass of the base, or what its `of_factory` makes of anything else."""
        base = self.base()
        if isinstance(found, type) and issubclass(found, base):
            plugin: type[Plugin] = found
            own = plugin.__dict__  # not what it has from a plug-in that it is a subclass of
            plugin.name, plugin.label = own.get("name", CUSTOM), own.get("label") or found.__name__
            return plugin
        if hasattr(base, "of_factory"):
            made: type[Plugin] = base.of_factory(found)
            return made
        raise ValueError(f"{said} must be a subclass of {self._base.replace(':', '.')}")


@cache
def _entry_points(group: str, path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Of the packages on `path`, sys.path: reading what they all say took a quarter of composing a configuration."""
    return {point.name: point for point in entry_points(group=group)}


ATTACKS = Registry("attack", "fedmd.attacks", "fedmd.attacks.base:Attack", "fedmd.attacks.catalogue")
MODELS = Registry("model", "fedmd.models", "fedmd.models.base:Model", "fedmd.models")
DATA = Registry("data source", "fedmd.data", "fedmd.data.sources.base:DataSource", "fedmd.data.sources")

DEFENSES = Registry("defense", "fedmd.defenses", "fedmd.defense.base:Defense", "fedmd.defense.catalogue")
DETECTORS = Registry(
    "detector", "fedmd.detectors", "fedmd.defense.samples.detectors.base:Detector", "fedmd.defense.samples.detectors"
)
THRESHOLDS = Registry(
    *("threshold", "fedmd.thresholds", "fedmd.defense.samples.thresholds:Threshold"),
    *("fedmd.defense.samples.thresholds", "fedmd.defense.calibration_file"),
)
HISTORIES = Registry("history", "fedmd.histories", "fedmd.defense.history:HistoryPlugin", "fedmd.defense.history")
STRATEGIES = Registry(
    *("strategy", "fedmd.strategies", "fedmd.flower.strategies.base:StrategyPlugin"),
    *(f"fedmd.flower.strategies.{module}" for module in ("catalogue", "vectors", "byzfl")),
)

register_attack = ATTACKS.register
register_defense = DEFENSES.register
register_detector = DETECTORS.register
register_threshold = THRESHOLDS.register
register_history = HISTORIES.register
register_strategy = STRATEGIES.register
register_model = MODELS.register
register_data = DATA.register

# By the key of the configuration that chooses one; `PluginSection.section` or one of its `slots`.
REGISTRIES: dict[str, Registry] = {
    "attack": ATTACKS,
    "defense": DEFENSES,
    "detector": DETECTORS,
    "threshold": THRESHOLDS,
    "history": HISTORIES,
    "strategy": STRATEGIES,
    "model": MODELS,
    "data": DATA,
}
