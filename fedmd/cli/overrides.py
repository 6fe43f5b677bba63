"""What `fedmd run --help` says of settings, and what the shell offers for them: read from conf/ as text."""

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import click
import typer.core

from fedmd.runs.conf import config_dir

_DEFAULT = re.compile(r"^  - (?P<group>\w+): (?P<option>\w+)", re.M)
_SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+): *(?P<value>\{.*?\}|\[.*?\]|[^#]*?)? *(?:# (?P<meaning>.*))?$")
_COLUMN = 46  # where meanings begin
_NARROW = 100  # columns; below, a meaning stands under its key
_OPTIONAL_VALUE = {"--cfg": "job", "--info": "all"}  # of an option without one


@dataclass(frozen=True)
class Setting:
    """A key as it is typed, its default as conf/ writes it, and what it means."""

    key: str
    default: str
    meaning: str


class RunCommand(typer.core.TyperCommand):
    """A command that takes overrides: its help explains the settings."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """`--cfg` may stand without a value, as for Hydra."""
        complete: list[str] = []
        for place, argument in enumerate(args):
            complete.append(argument)
            following = args[place + 1] if place + 1 < len(args) else "-"
            if argument in _OPTIONAL_VALUE and (following.startswith("-") or "=" in following):
                complete.append(_OPTIONAL_VALUE[argument])
        return super().parse_args(context, complete)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Groups and their options, and the keys of the default options with their meaning."""
        formatter.write(f"\n{explained(formatter.width)}\n")


def explained(width: int) -> str:
    """Every group with its options, the default one first, and every setting of that, in lines of `width` columns."""
    lines = ["Settings: GROUP=OPTION takes a file of conf/, GROUP.key=value sets one key.", ""]
    for group, default in default_options().items():
        others = [option for option in options(group) if option != default]
        head = f"{group}={default}" if default else f"{group}=..."
        lines += _beside(f"  {head}", f"or {', '.join(others)}" if others else "", width)
        for setting in settings(group, default) if default else ():
            lines += _beside(f"    {setting.key}={setting.default}", setting.meaning, width)
        lines.append("")
    for key, meaning in {
        "seed=0": "of everything that is random",
        "tracking=[]": "csv, tensorboard, mlflow, wandb: trackers that are told, too",
        "resume=RUN_DIR": "go on with a run that was killed; takes nothing beside it",
        "hydra.run.dir=DIR, hydra.sweep.dir=DIR": "the folder of a run, of a sweep or a study",
    }.items():
        lines += _beside(f"  {key}", meaning, width)
    last = "The keys of another option: fedmd run --cfg job GROUP=OPTION. fedmd list has a line on each option."
    return "\n".join([*lines, "", *textwrap.wrap(last, width)])


def _beside(shown: str, meaning: str, width: int) -> list[str]:
    """A setting and, from a column on or below it, what it means."""
    column = 8 if width < _NARROW else _COLUMN
    words = textwrap.wrap(meaning, width - column, break_on_hyphens=False)
    if words and len(shown) < column:
        shown = f"{shown:<{column}}{words.pop(0)}"
    return [shown, *(" " * column + line for line in words)]


def complete(incomplete: str) -> list[str]:
    """What `incomplete` may become: a group's options, else groups and keys. Typer knows it by its name."""
    group, equals, _ = incomplete.partition("=")
    known = default_options()
    if equals:
        return [f"{group}={option}" for option in options(group) if f"{group}={option}".startswith(incomplete)]
    keys = [setting.key for group, option in known.items() if option for setting in settings(group, option)]
    return [
        f"{key}=" for key in (*known, *keys, "seed", "hydra.run.dir", "hydra.sweep.dir") if key.startswith(incomplete)
    ]


def default_options() -> dict[str, str]:
    """The groups in the order of conf/config.yaml, with their default options; "" for none."""
    text = (config_dir() / "config.yaml").read_text(encoding="utf-8")
    found = {match["group"]: match["option"] for match in _DEFAULT.finditer(text)}
    return {group: "" if option == "null" else option for group, option in found.items()}


def options(group: str) -> list[str]:
    """The options that conf/ has for a group, old names left out."""
    files = sorted((config_dir() / group).glob("*.yaml"))
    return [file.stem for file in files if not re.search(r"^defaults: \[", file.read_text(encoding="utf-8"), re.M)]


def settings(group: str, option: str) -> Iterator[Setting]:
    """The settings in an option's file. Comments above a setting are about it, but those at the top, and sentences."""
    path: list[str] = []
    above: list[str] = []
    head = True
    for line in (config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            above += [] if head else [line.lstrip("# ")]
            continue
        told, above, head = " ".join(above), [], False
        found = _SETTING.match(line)
        if not found or (found["key"] == "name" and not found["indent"]):
            continue
        path = [*path[: len(found["indent"]) // 2], found["key"]]
        if found["value"] and found["key"] != group:  # mode=stream says all that its file does
            meaning = found["meaning"] or ("" if told.endswith(".") else told)
            yield Setting(".".join([group, *path]), found["value"], meaning)
