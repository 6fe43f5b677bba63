"""What `fedmd run --help` says of settings, and what the shell offers for them: read from conf/ as text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import click
import typer.core

from fedmd.runs.conf import config_dir

_DEFAULT = re.compile(r"^  - (?P<group>\w+): (?P<option>\w+)", re.M)
_SETTING = re.compile(r"^(?P<indent> *)(?P<key>\w+): *(?P<value>\{.*?\}|\[.*?\]|[^#]*?)? *(?:# (?P<meaning>.*))?$")
_COLUMN = 46
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
        formatter.write(f"\n{explained()}\n")


def explained() -> str:
    """Every group with its options, the default one first, and every setting of that."""
    lines = ["Settings: GROUP=OPTION takes a file of conf/, GROUP.key=value sets one key.", ""]
    for group, default in default_options().items():
        others = [option for option in options(group) if option != default]
        head = f"{group}={default}" if default else f"{group}=..."
        lines.append(f"  {head}" + (f"    or {', '.join(others)}" if others else ""))
        for setting in settings(group, default) if default else ():
            shown = f"    {setting.key}={setting.default}"
            if len(shown) >= _COLUMN and setting.meaning:
                lines.append(shown)
                shown = ""
            lines.append(f"{shown:<{_COLUMN}}{setting.meaning}".rstrip())
        lines.append("")
    lines += [
        "  seed=0                                      of everything that is random",
        "  resume=RUN_DIR                              go on with a run that was killed; takes nothing beside it",
        "  hydra.run.dir=DIR, hydra.sweep.dir=DIR      the folder of a run, of a sweep or a study",
        "",
        "The keys of another option: fedmd run --cfg job GROUP=OPTION. fedmd list has a line on each option.",
    ]
    return "\n".join(lines)


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
    """The settings in an option's file; a comment above a line is about it where it has none of its own."""
    path: list[str] = []
    above = ""
    for line in (config_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#"):
            above = line.lstrip("# ")
            continue
        found = _SETTING.match(line)
        if not found or (found["key"] == "name" and not found["indent"]):
            above = ""
            continue
        path = [*path[: len(found["indent"]) // 2], found["key"]]
        if found["value"]:
            meaning = found["meaning"] or (above if above and not above.endswith(".") else "")
            yield Setting(".".join([group, *path]), found["value"], meaning)
        above = ""
