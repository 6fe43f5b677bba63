"""A run's folder: its configuration, and which server works in it. Without torch, for whoever only looks."""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmd import storage
from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import DERIVED, METRICS, SUMMARY, TRUTH, read_summary

CONFIG = "config.json"  # there from a run's first moment on


def note_config(folder: Path, config: RunConfig) -> None:
    """Write the configuration down, complete and with absolute paths: a run can be resumed from anywhere."""
    with storage.replacing(folder / CONFIG) as temporary:
        temporary.write_text(config.to_json() + "\n")


def noted_config(folder: Path, asked_by: str = "resume") -> RunConfig:
    """What `note_config` wrote.

    Raises ConfigError where there is none, or of another version of fedmd, which begins with the setting or the command
    that it was `asked_by`.
    """
    try:
        text = (folder / CONFIG).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{asked_by}: {folder} is no folder of a run, it has no readable {CONFIG}.") from error
    try:
        return RunConfig.parse(text)
    except ConfigError as error:
        raise ConfigError(
            f"{asked_by}: {folder / CONFIG} is of another version of fedmd ({str(error)[:-1]})."
        ) from error


def has_finished(folder: Path) -> bool:
    """Whether the run in `folder` has its summary; one of an earlier run with other settings does not count.

    Raises ConfigError as `noted_config` does.
    """
    summary = read_summary(folder) if (folder / METRICS).exists() else None
    if summary is None:
        return False
    return not (folder / CONFIG).exists() or summary["config"] == json.loads(noted_config(folder).to_json())


@contextmanager
def sole_server(folder: Path) -> Iterator[None]:
    """Nobody else serves the run in `folder` meanwhile, and files that a killed server had half written are gone.

    Raises ConfigError when somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:  # freed by the kernel, however the process ends
        for last in (False, False, False, True):  # `is_served` of somebody who watches holds it for microseconds
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if last:
                    raise ConfigError(f"{folder}: another process is running this run.") from error
                time.sleep(0.01)
        for pattern in (CONFIG, "*.safetensors", TRUTH, SUMMARY, *DERIVED):
            storage.discard_leftovers(folder, pattern)
        yield


def is_served(folder: Path) -> bool:
    """Whether a server works in the folder: it holds the lock that `sole_server` takes."""
    try:
        with (folder / ".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
