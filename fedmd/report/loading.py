"""What lies in a folder: a run, or the runs of a sweep or a comparison."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fedmd.report.files import COMPARISON, METRICS, SUMMARY, cell_folder
from fedmd.report.results import Arms, ReportError, Run, Study, flat
from fedmd.storage import read_json
from fedmd.types import Json


def load(folder: Path) -> Run | Study:
    """Look at `folder` and read it. Raises ReportError when no finished run lies there."""
    if not folder.is_dir():
        raise ReportError(f"{folder}: is not a folder; expected the folder of a run, a sweep or a comparison.")
    if (folder / SUMMARY).exists():
        return Run.read(folder)
    if (folder / COMPARISON).exists():
        comparison = read_json(folder / COMPARISON)
        return Study(folder, "comparison", comparison_arms(folder, comparison), comparison)
    if runs := [Run.read(found) for found in run_folders(folder)]:
        return Study(folder, "sweep", sweep_arms(runs))
    hint = " (the run there is not finished)" if (folder / METRICS).exists() else ""
    raise ReportError(
        f"{folder}: no finished run{hint}; expected {SUMMARY} of a run, {COMPARISON} of a comparison, "
        "or sub folders with runs of a sweep."
    )


def comparison_arms(folder: Path, comparison: Json) -> Arms:
    """The cells that still lie beside comparison.json."""
    cells = {arm: {seed: cell_folder(folder, arm, seed) for seed in comparison["seeds"]} for arm in comparison["arms"]}
    return {
        arm: {seed: Run.read(cell) for seed, cell in by_seed.items() if (cell / SUMMARY).exists()}
        for arm, by_seed in cells.items()
    }


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders below `folder` that hold a finished run, sorted; hidden folders and what lies below a run left out."""
    for path, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        if SUMMARY in files and METRICS in files:  # somebody else's summary.json is no run
            names.clear()
            yield Path(path)


def sweep_arms(runs: Iterable[Run]) -> Arms:
    """Runs that differ in nothing but the seed make an arm, named after the settings that vary in the sweep."""
    configs = [(run, flat(run.config)) for run in runs]
    keys = varying([config for _, config in configs])
    arms: dict[str, dict[int, Run]] = {}
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


def shown(value: object) -> str:
    """A setting's value as YAML users write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
