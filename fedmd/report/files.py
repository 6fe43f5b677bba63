"""The files of a run folder, and strict JSON: no NaN, no infinity, never a half-written file."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

METRICS = "metrics.jsonl"  # one line a round
VERDICTS = "verdicts.parquet"  # one row a sample, one row group a round
TRUTH = "truth.json"  # who poisoned and when
DERIVED = ("accuracy.png", "discrepancy.png", "strip.png", "strip.npz", "report.html")  # drawn from the others
SUMMARY = "summary.json"  # written last: a folder that has it holds a finished run
COMPARISON = "comparison.json"  # of a study, whose runs lie where `cell_folder` says
REPORT = "report.html"


def cell_folder(study: Path, arm: str, seed: int) -> Path:
    """Where the run of `arm` at `seed` lies in a study's folder."""
    slug = "-".join("".join(c if c.isalnum() or c in ".=" else " " for c in arm).split()).lower()
    return study / "cells" / slug / f"seed-{seed}"


def strict(value: Any) -> Any:
    """`value` as plain JSON types: NumPy scalars and arrays unwrapped, NaN and ±infinity become None."""
    if isinstance(value, dict):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return strict(value.tolist())
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON text of `value`; keys keep their order."""
    return json.dumps(strict(value), allow_nan=False, ensure_ascii=False, indent=indent)


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as `write_text` does."""
    write_text(path, dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically: readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_json(path: Path) -> Any:
    """The value in the JSON file at `path`."""
    return json.loads(path.read_text(encoding="utf-8"))
