"""Where a run's settings, curves, summary and report go besides its folder: `tracking=[csv,tensorboard,mlflow,wandb]`.

One small interface; each library is imported when it is asked for. Nothing leaves the machine unless the library is
told so: MLflow writes where MLFLOW_TRACKING_URI points, by default to the current folder, and Weights & Biases offline
unless WANDB_MODE says otherwise.
"""

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fedmd.report.monitoring.tensorboard import EventWriter, round_scalars
from fedmd.types import Json, RoundReport

Settings = Mapping[str, object]  # by dotted keys


class Tracker(Protocol):
    """Told of one run, from its first round to its last."""

    def begin(self, name: str, settings: Settings) -> None:
        """The run is called `name`; a run that goes on begins once more."""

    def record(self, report: RoundReport) -> None:
        """A round is over."""

    def finish(self, summary: Mapping[str, float], files: Sequence[Path]) -> None:
        """The run is over: the numbers of its summary, and files to keep with it."""


class Csv:
    """`curves.csv` in the run's folder: one row a round."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "curves.csv"
        self._rows: dict[int, dict[str, float]] = {}

    def begin(self, name: str, settings: Settings) -> None:
        """Rounds that an earlier server wrote stay."""
        if self.path.exists():
            with self.path.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    number = int(row.pop("round"))
                    self._rows[number] = {key: float(value) for key, value in row.items() if value}

    def record(self, report: RoundReport) -> None:
        """Write all of them again, as a later round may have a column that no earlier one had."""
        self._rows = {number: row for number, row in self._rows.items() if number < report.round}
        self._rows[report.round] = round_scalars(report)
        columns = dict.fromkeys(key for row in self._rows.values() for key in row)
        with self.path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["round", *columns], lineterminator="\n")
            writer.writeheader()
            writer.writerows({"round": number, **row} for number, row in self._rows.items())

    def finish(self, summary: Mapping[str, float], files: Sequence[Path]) -> None:
        """Nothing more: the folder has it all."""


class TensorBoard:
    """Event files in the run's folder; see `EventWriter`."""

    def __init__(self, folder: Path) -> None:
        self._events = EventWriter(folder)

    def begin(self, name: str, settings: Settings) -> None:
        """The writer begins with the first round."""

    def record(self, report: RoundReport) -> None:
        """Its scalars."""
        self._events.record(report)

    def finish(self, summary: Mapping[str, float], files: Sequence[Path]) -> None:
        """Close the files."""
        self._events.__exit__(None, None, None)


class Mlflow:
    """One MLflow run: parameters, metrics by round, the summary's numbers, files as artefacts."""

    def __init__(self, folder: Path) -> None:
        import mlflow

        self._mlflow: Any = mlflow

    def begin(self, name: str, settings: Settings) -> None:
        """A run of the experiment `fedmd`."""
        self._mlflow.set_experiment("fedmd")
        self._run = self._mlflow.start_run(run_name=name)
        self._mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})

    def record(self, report: RoundReport) -> None:
        """Its scalars."""
        self._mlflow.log_metrics(round_scalars(report), step=report.round)

    def finish(self, summary: Mapping[str, float], files: Sequence[Path]) -> None:
        """Close the run."""
        self._mlflow.log_metrics({f"summary.{key}": value for key, value in summary.items()})
        for path in files:
            self._mlflow.log_artifact(str(path))
        self._mlflow.end_run()


class Wandb:
    """One run of the project `fedmd`: config, history, summary, files as an artefact."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self._wandb: Any = wandb
        self._folder = folder

    def begin(self, name: str, settings: Settings) -> None:
        """Offline unless WANDB_MODE says otherwise."""
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = self._wandb.init(
            project="fedmd", name=name, dir=str(self._folder), config=dict(settings), mode=mode, reinit=True
        )

    def record(self, report: RoundReport) -> None:
        """Its scalars."""
        self._run.log(round_scalars(report), step=report.round)

    def finish(self, summary: Mapping[str, float], files: Sequence[Path]) -> None:
        """Close the run."""
        self._run.summary.update(dict(summary))
        artefact = self._wandb.Artifact(f"run-{self._run.id}", type="run")
        for path in files:
            artefact.add_file(str(path))
        self._run.log_artifact(artefact)
        self._run.finish()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "csv": Csv,
    "tensorboard": TensorBoard,
    "mlflow": Mlflow,
    "wandb": Wandb,
}


def missing(names: Sequence[str]) -> str | None:
    """The first of the trackers whose library is not installed; None where all are."""
    return next((name for name in names if name != "csv" and find_spec(name) is None), None)


def numbers(summary: Json) -> dict[str, float]:
    """The numbers of a summary by their dotted names, settings left out."""
    found: dict[str, float] = {}

    def collect(tree: Json, prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                collect(value, f"{prefix}{key}.")
            elif isinstance(value, int | float) and not isinstance(value, bool):
                found[f"{prefix}{key}"] = float(value)

    collect({key: value for key, value in summary.items() if key not in ("config", "versions", "scores")}, "")
    return found
