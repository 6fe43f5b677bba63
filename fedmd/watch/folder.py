"""Which runs lie in a folder, and how each of them is. Only reads; a run that is being written is no obstacle."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedmd.config import ConfigError
from fedmd.report.files import METRICS, SUMMARY, read_metrics
from fedmd.rounds.folder import CONFIG, is_served
from fedmd.runs.ledger import TRACEBACK
from fedmd.storage import read_json
from fedmd.types import PHASES, Json


class State(StrEnum):
    """How a run is."""

    WAITING = "waiting"  # it has not begun
    RUNNING = "running"
    STOPPED = "stopped"  # its server is gone, and it can go on
    FAILED = "failed"
    FINISHED = "finished"


@dataclass(frozen=True)
class Seen:
    """A run as it was at one moment. `name` is its folder relative to the one that is watched, "." for that itself."""

    folder: Path
    name: str
    state: State
    config: Json
    metrics: list[Json]
    began: float  # seconds since 1970: when its server started, or its settings were written
    latest: float  # when its last round was written; `began` where there is none
    why: str = ""  # of a failed one

    @property
    def rounds(self) -> int:
        """How many it is to have."""
        return sum(self.config["stream"][f"{phase}_rounds"] for phase in PHASES)


def seen_runs(path: Path) -> list[Seen]:
    """Every run in `path` as it is now, by name; what cannot be read at this moment is left out.

    Raises ConfigError where none lies there.
    """
    if not path.is_dir():
        raise ConfigError(f"fedmd watch: there is no folder {path}; it takes the folder of a run, a sweep or a study.")
    runs = [run for folder in run_folders(path) if (run := look(folder, path)) is not None]
    if not runs:
        raise ConfigError(f"fedmd watch: no run lies in {path}; it takes the folder of a run, a sweep or a study.")
    return runs


def run_folders(path: Path) -> Iterator[Path]:
    """Those at and below `path` that hold a run, begun or not, sorted; not hidden ones, nor what lies below a run."""
    for found, names, files in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if CONFIG in files or (SUMMARY in files and METRICS in files):
            names.clear()
            yield Path(found)


def look(folder: Path, root: Path) -> Seen | None:
    """The run in `folder`; None where its files are half there."""
    try:
        summary: Json = read_json(folder / SUMMARY) if (folder / SUMMARY).exists() else {}
        config = read_json(folder / CONFIG) if (folder / CONFIG).exists() else summary["config"]
        if summary and summary["config"] != config:
            summary = {}  # of an earlier run with other settings
        metrics = read_metrics(folder) if (folder / METRICS).exists() else []
        source = folder / CONFIG if (folder / CONFIG).exists() else folder / METRICS
        began = source.stat().st_mtime
        latest = (folder / METRICS).stat().st_mtime if metrics else began
    except (OSError, ValueError, KeyError):  # a moment later it may be whole
        return None
    why = ""
    if summary:
        state = State.FINISHED
    elif is_served(folder):
        state = State.RUNNING
    elif why := _failure(folder):
        state = State.FAILED
    else:
        state = State.STOPPED if metrics else State.WAITING
    return Seen(folder, folder.relative_to(root).as_posix(), state, config, metrics, began, latest, why)


def _failure(folder: Path) -> str:
    """The last line of a failed run's traceback."""
    try:
        lines = (folder / TRACEBACK).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return lines[-1] if lines else "no reason given"
