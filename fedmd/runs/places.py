"""Files and ports that a run needs and does not find are said at once, before anything slow is imported."""

import socket
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fedmd.config import ConfigError
from fedmd.runs.compose import PATHS

_MADE = ("runtime", "cache_dir")  # the one place that is made where it is not


def require_places(composed: DictConfig) -> None:
    """Raise ConfigError for the first file that is not there, or for a port that is taken.

    `composed` is what Hydra made of overrides: nothing in it has been looked up yet.
    """
    for section, key in PATHS:
        named = OmegaConf.select(composed, f"{section}.{key}")
        if (section, key) == _MADE or not isinstance(named, str):
            continue
        for path in (Path(part.strip()).expanduser() for part in named.split(",")):
            if not path.exists():
                raise ConfigError(f"{section}.{key}: there is no file or folder {path}.")
    port, host = (OmegaConf.select(composed, f"observability.{key}") for key in ("prometheus_port", "host"))
    if isinstance(port, int) and 0 < port < 2**16:
        try:
            with socket.create_server((str(host), port), reuse_port=False):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"observability.prometheus_port: {host}:{port} cannot be used ({reason}).") from error
