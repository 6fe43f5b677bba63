"""Hydra's side of the configuration: find `conf/`, compose overrides, expand sweeps.

Hydra's errors become one sentence that names the key and the choices.
"""

import difflib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedmd.config import ConfigError, RunConfig
from fedmd.runs.conf import config_dir
from fedmd.runs.options import installed_options, register_installed, rewritten, without_foreign

_NOT_OF_A_RUN = ("experiment", "compare", "tune", "resume")  # they shape a study, or say where a run is, not what
PATHS = (
    ("data", "path"),
    ("runtime", "cache_dir"),
    ("threshold", "path"),
    ("federation", "register_file"),
    ("audit", "key_file"),
)


@dataclass(frozen=True)
class Composed:
    """A valid configuration, the run folder Hydra chose for it, and the texts Hydra keeps beside a run."""

    config: RunConfig
    folder: Path
    job_yaml: str
    overrides: tuple[str, ...]

    def write_hydra_files(self) -> None:
        """`.hydra/config.yaml` and `.hydra/overrides.yaml` in the run folder, as Hydra users expect them."""
        target = self.folder / ".hydra"
        make_folder(target)
        (target / "config.yaml").write_text(self.job_yaml)
        (target / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(list(self.overrides))))


def make_folder(folder: Path) -> None:
    """Create `folder` unless it is there. Raises ConfigError where that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"hydra.run.dir or hydra.sweep.dir: the folder {folder} cannot be created ({error.strerror})."
        ) from error


def choices(group: str) -> list[str]:
    """The options of a config group, those of installed packages included; no old names."""
    files = [path for path in (config_dir() / group).glob("*.yaml") if not _is_alias(path)]
    return sorted({*(path.stem for path in files), *installed_options(group)})


def _is_alias(path: Path) -> bool:
    """Whether the file of an option is another name of one, as `fedmd.runs.options` makes them."""
    return all(line.startswith(("#", "defaults: [")) for line in path.read_text().splitlines())


def groups() -> list[str]:
    """The config groups."""
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir())


def resumed_folder(overrides: Sequence[str]) -> Path | None:
    """RUN_DIR of the override resume=RUN_DIR; None without one.

    Raises ConfigError when there are others beside it: a run that goes on is the run that it was.
    """
    asked = [override for override in overrides if override.startswith("resume=")]
    folder = asked[-1].partition("=")[2].strip("'\"") if asked else ""
    if folder in ("", "null"):
        return None
    if others := [override for override in overrides if override not in asked] + asked[:-1]:
        raise ConfigError(f"resume: takes no other settings beside it, a run keeps its own; leave out {others[0]!r}.")
    return Path(folder).expanduser().absolute()


def compose(overrides: Sequence[str], *, sweep: bool = False) -> Composed:
    """One run's configuration from Hydra overrides. Raises ConfigError with one sentence.

    `sweep` takes the run folder from hydra.sweep.dir and hydra.sweep.subdir instead of hydra.run.dir.
    """
    return validated(compose_raw(overrides), overrides, sweep=sweep)


def validated(composed: DictConfig, overrides: Sequence[str], *, sweep: bool) -> Composed:
    """One run of what `compose_raw` made of the overrides. Raises ConfigError with one sentence."""
    job = without_hydra(composed)
    try:
        mapping = OmegaConf.to_container(job, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_unresolved(error)) from error
    assert isinstance(mapping, dict)
    if mapping.get("resume") is not None:
        raise ConfigError("resume: is for fedmd run alone, and takes no other settings beside it.")
    for key in _NOT_OF_A_RUN:
        mapping.pop(key, None)
    for section, key in PATHS:  # worker processes have other current folders
        if isinstance(mapping.get(section), dict) and isinstance(mapping[section].get(key), str):
            paths = (Path(path).expanduser().absolute() for path in mapping[section][key].split(","))
            mapping[section][key] = ",".join(map(str, paths))
    typed = {override.partition("=")[0].lstrip("+") for override in map(rewritten, overrides)}
    config = RunConfig.parse(without_foreign({str(key): value for key, value in mapping.items()}, typed))
    folder = chosen_folder(composed, sweep=sweep, subdir=sweep)
    return Composed(config, folder, OmegaConf.to_yaml(job), tuple(overrides))


def without_hydra(composed: DictConfig) -> DictConfig:
    """What Hydra composed, its own section left out."""
    job = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    assert isinstance(job, DictConfig)
    return job


def chosen_folder(composed: DictConfig, *, sweep: bool, subdir: bool) -> Path:
    """The folder of hydra.run, or of hydra.sweep with or without its subdir."""
    try:
        place = composed.hydra.sweep if sweep else composed.hydra.run
        return (Path(place.dir) / place.subdir if subdir else Path(place.dir)).absolute()
    except OmegaConfBaseException as error:
        raise ConfigError(_unresolved(error)) from error


def _unresolved(error: OmegaConfBaseException) -> str:
    return f"{getattr(error, 'full_key', None) or 'a setting'}: a value is required."


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of a sweep's overrides, `a=1,2 b=x` -> [[a=1, b=x], [a=2, b=x]]."""
    alternatives = []
    for override in parse_overrides(overrides):
        if override.is_sweep_override():
            key = override.get_key_element()
            alternatives.append([f"{key}={value}" for value in _swept(key, override)])
        else:
            alternatives.append([str(override.input_line)])
    return [list(combination) for combination in itertools.product(*alternatives)]


def _swept(key: str, override: Override) -> list[str]:
    """The values of one override of a sweep; glob(...) is over a group's options."""
    value = override.value()
    if isinstance(value, Glob):
        if not (found := value.filter(choices(key)) if key in groups() else []):
            raise ConfigError(f"{key}: {override.get_value_element_as_str()} matches no option of a group.")
        return found
    try:
        return [str(each) for each in override.sweep_string_iterator()]
    except HydraException as error:  # interval(...)
        raise ConfigError(
            f"{key}: an interval has no end of values; write some out, as in seed=0,1,2, or search it with "
            "hydra/sweeper=optuna."
        ) from error


def parse_overrides(overrides: Sequence[str]) -> list[Override]:
    """As Hydra reads them. Raises ConfigError for what is no override."""
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except (OverrideParseException, HydraException) as error:
        raise ConfigError(_parse_sentence(error)) from error


def _parse_sentence(error: Exception) -> str:
    culprit = getattr(error, "override", "an argument")
    return f"{culprit!r} is not a Hydra override; write key=value, for example attack.fraction=0.2."


def compose_raw(overrides: Sequence[str]) -> DictConfig:
    """What Hydra makes of the overrides, its own section included. Raises ConfigError with one sentence."""
    register_installed()
    overrides = [rewritten(override) for override in overrides]
    parsed = parse_overrides(overrides)
    for override in parsed:
        key = override.get_key_element()
        if override.is_sweep_override():
            raise ConfigError(f"{key}: takes one value; to sweep over several, add -m.")
        if key in groups() and not isinstance(override.value(), str | list | dict):
            value = override.get_value_element_as_str()
            raise ConfigError(f"{key}: {value!r} is not one of {', '.join(choices(key))}.")
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3", job_name="fedmd"):
        try:
            return hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
        except MissingConfigException as error:
            raise ConfigError(_missing_option(str(error))) from error
        except ConfigCompositionException as error:
            raise ConfigError(_unknown_key(str(error), parsed)) from error
        except ValueError as error:  # hydra=5, =3
            raise ConfigError(f"{' '.join(str(error).split())}.") from error


def _missing_option(message: str) -> str:
    found = re.search(r"Could not find '(.+?)/([^/']*)'", message)
    if not found:
        return message.splitlines()[0] + "."
    group, option = found.groups()
    return f"{group}: {option!r} is not one of {', '.join(choices(group)) or '(no options)'}."


def _unknown_key(message: str, overrides: Sequence[Override]) -> str:
    found = re.search(r"Could not (?:override|append|delete)[^']*'([^'@]+)", message)
    if not found:
        return " ".join(message.split()) + "."
    key = found.group(1)
    chosen = [o for o in overrides if o.key_or_group in groups() and o.key_or_group != key]  # a 2nd typo must not raise
    others = [str(o.input_line) for o in chosen]
    known: object = OmegaConf.select(hydra.compose("config", overrides=others), key.rpartition(".")[0] or "")
    if not key.rpartition(".")[0]:
        known = hydra.compose("config", overrides=others)
    inside = isinstance(known, DictConfig)
    names = sorted(str(name) for name in known) if isinstance(known, DictConfig) else groups()
    close = difflib.get_close_matches(key.rpartition(".")[2] if inside else key.partition(".")[0], names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"{key}: unknown key{hint}; allowed here: {', '.join(names)}."
