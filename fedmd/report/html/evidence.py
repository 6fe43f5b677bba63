"""What lies in a folder: one run, a sweep of runs, or a comparison, read into one shape."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import pandas as pd

from fedmd.report.detector import DISCREPANCY, detector_name, detector_setting
from fedmd.report.figures.examples import read_strip
from fedmd.report.files import COMPARISON, METRICS, SUMMARY, TRUTH, VERDICTS, cell_folder, read_json
from fedmd.report.recorder import read_metrics, read_verdicts
from fedmd.report.summary import read_summary
from fedmd.report.truth import Truth
from fedmd.types import Json, Strip

Kind = Literal["run", "sweep", "comparison"]
COLUMNS = ["round", "phase", "client", "index", "before", "threshold"]


class ReportError(ValueError):
    """There is nothing to report on; the message is one sentence, fit to be shown as it is."""


@dataclass(frozen=True)
class Run:
    """A finished run. What its folder no longer holds is empty: no metrics, no verdicts, nobody malicious.

    `verdicts` have a column `discrepancy` beside `before`, the detector's score, where the two are not the same.
    """

    folder: Path
    summary: Json
    metrics: list[Json]
    verdicts: pd.DataFrame
    truth: Truth
    strip: Strip | None

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The run whose summary.json lies in `folder`."""
        summary = read_summary(folder)
        if summary is None:
            raise ReportError(f"{folder}: the run there is not finished, {SUMMARY} is missing.")
        columns = COLUMNS if detector_of(summary) == DISCREPANCY else [*COLUMNS, "discrepancy"]
        return cls(
            folder,
            summary,
            read_metrics(folder) if (folder / METRICS).exists() else [],
            read_verdicts(folder, columns) if (folder / VERDICTS).exists() else pd.DataFrame(columns=columns),
            Truth.read(folder) if (folder / TRUTH).exists() else Truth((), ()),
            read_strip(folder),
        )

    @property
    def detector(self) -> str:
        """The name of the score in the column `before`."""
        return detector_of(self.summary)

    @property
    def stopping(self) -> str:
        """Over what the score is averaged before it is held against the threshold."""
        return str(self.summary["config"].get("defense", {}).get("stopping", "per_sample"))


def detector_of(summary: Json) -> str:
    """The name of what the defence holds against its threshold."""
    return detector_name(detector_setting(summary["config"]))


Arms = dict[str, dict[int, Run]]


@dataclass(frozen=True)
class Evidence:
    """`arms[name][seed]`: one arm of one run for kind=run; for a sweep an arm is what differs only in the seed."""

    kind: Kind
    folder: Path
    arms: Arms
    comparison: Json | None = None


def read_evidence(folder: Path) -> Evidence:
    """Look at `folder` and read it. Raises ReportError when no finished run lies there."""
    if not folder.is_dir():
        raise ReportError(f"{folder}: is not a folder; expected the folder of a run, a sweep or a comparison.")
    if (folder / SUMMARY).exists():
        run = Run.read(folder)
        return Evidence("run", folder, {folder.resolve().name: {run.summary["seed"]: run}})
    if (folder / COMPARISON).exists():
        comparison = read_json(folder / COMPARISON)
        return Evidence("comparison", folder, comparison_arms(folder, comparison), comparison)
    runs = [Run.read(found) for found in run_folders(folder)]
    if runs:
        return Evidence("sweep", folder, sweep_arms(runs))
    hint = " (the run there is not finished)" if (folder / METRICS).exists() else ""
    raise ReportError(
        f"{folder}: no finished run{hint}; expected {SUMMARY} of a run, {COMPARISON} of a comparison, "
        "or sub folders with runs of a sweep."
    )


def comparison_arms(folder: Path, comparison: Json) -> Arms:
    """The cells that still lie beside comparison.json."""
    arms: Arms = {arm: {} for arm in comparison["arms"]}
    for arm in arms:
        for seed in comparison["seeds"]:
            if (cell := cell_folder(folder, arm, seed)).joinpath(SUMMARY).exists():
                arms[arm][seed] = Run.read(cell)
    return arms


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders below `folder` that hold a finished run, sorted; hidden folders and what lies below a run left out."""
    for path, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if SUMMARY in files and METRICS in files:  # somebody else's summary.json is no run
            names.clear()
            yield Path(path)


def sweep_arms(runs: Iterable[Run]) -> Arms:
    """Runs that differ in nothing but the seed make an arm, named after the settings that vary in the sweep."""
    configs = [(run, flat(run.summary["config"])) for run in runs]
    keys = varying([config for _, config in configs])
    arms: Arms = {}
    for run, config in configs:
        name = ", ".join(f"{key.removesuffix('.name')}={shown(config.get(key))}" for key in keys) or "all runs"
        arms.setdefault(name, {})[run.summary["seed"]] = run
    return {name: dict(sorted(by_seed.items())) for name, by_seed in arms.items()}


def varying(configs: list[dict[str, Any]]) -> list[str]:
    """Keys, the seed aside, whose values differ; not those that follow from the name of their own section."""
    keys = [key for key in dict.fromkeys(key for config in configs for key in config) if key != "seed"]
    differing = [key for key in keys if len({shown(config.get(key)) for config in configs}) > 1]

    def follows(key: str) -> bool:
        name = f"{key.partition('.')[0]}.name"
        if key == name or name not in differing:
            return False
        pairs = {(shown(config.get(name)), shown(config.get(key))) for config in configs}
        return len(pairs) == len({value for value, _ in pairs})

    return [key for key in differing if not follows(key)]


def flat(tree: Json, prefix: str = "") -> dict[str, Any]:
    """A tree of settings as {"data.partition.name": "iid", ...}."""
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result.update(flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return result


def shown(value: object) -> str:
    """A setting's value as YAML users write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
