"""`fedmd deploy init`: write a federation's folder from the templates beside this file."""

import sys
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedmd.config import ConfigError

_TEMPLATES = Path(__file__).resolve().parent / "templates"
_PER_NODE = "nodes/node.toml"
_RENAMED = {
    "gitignore": ".gitignore",
    "dockerignore": ".dockerignore",
}  # under its own name it would rule over the templates themselves
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Plan:
    """What the templates need to know: where nodes reach the server, and how many of them to prepare.

    `port` is the proxy's, open to the outside; `control_port` is SuperLink's own, on the server's loopback.
    """

    host: str = LOOPBACK
    port: int = 9092
    nodes: int = 4
    control_port: int = 9093

    def __post_init__(self) -> None:
        """Raises ConfigError for what no federation can be made of."""
        for option, port in (("--port", self.port), ("--control-port", self.control_port)):
            if not 1 <= port <= 65535:
                raise ConfigError(f"{option}: must be between 1 and 65535, not {port}.")
        if self.port == self.control_port:
            raise ConfigError(f"--port: must differ from --control-port, which is {self.control_port} too.")
        if not 1 <= self.nodes <= 10_000:
            raise ConfigError(f"--nodes: must be between 1 and 10000, not {self.nodes}.")
        if not self.host or any(character.isspace() or character in "\"'\\$`" for character in self.host):
            raise ConfigError(f"--host: must be a host name or an address, not {self.host!r}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The nodes' names; the number in each is the client it answers for."""
        return tuple(f"node-{client}" for client in range(self.nodes))


def init_folder(folder: Path, plan: Plan) -> list[Path]:
    """Write the folder; returns its files. An existing file is never overwritten.

    Raises ConfigError when the folder has one of the files already, or cannot be written.
    """
    folder = folder.expanduser().absolute()
    if any(character.isspace() or character in "\"'\\$%" for character in str(folder)):
        raise ConfigError(f"{folder}: shell, systemd and TOML files name this folder; choose one without blanks.")
    rendered = _render(folder, plan)
    if there := [path for path in rendered if path.exists()]:
        raise ConfigError(f"{there[0]} exists already; fedmd deploy init overwrites nothing.")
    try:
        for path, text in rendered.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            if text.startswith("#!"):
                path.chmod(0o755)
        (folder / "data").mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror}).") from error
    return sorted(rendered)


def _render(folder: Path, plan: Plan) -> dict[Path, str]:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    facts = {
        "folder": str(folder),
        "host": plan.host,
        "listen": LOOPBACK if plan.host in (LOOPBACK, "localhost") else "0.0.0.0",
        "port": plan.port,
        "control_port": plan.control_port,
        "nodes": plan.nodes,
        "names": plan.names,
        "bin": str(Path(sys.executable).parent),
    }
    names = sorted(path.relative_to(_TEMPLATES).as_posix() for path in _TEMPLATES.rglob("*") if _is_template(path))
    rendered = {}
    for name in names:
        template = environment.get_template(name)
        if name == _PER_NODE:
            for client, node in enumerate(plan.names):
                rendered[folder / f"nodes/{node}.toml"] = template.render(**facts, client=client, name=node)
        else:
            rendered[folder / _RENAMED.get(name, name)] = template.render(**facts)
    return rendered


def _is_template(path: Path) -> bool:
    """Every file beside this one but Python's own and what other templates include."""
    return path.is_file() and "__pycache__" not in path.parts and path.suffix not in (".pyc", ".inc")
