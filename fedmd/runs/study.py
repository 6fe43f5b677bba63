"""`fedmd compare`: arms times seeds on one Ray instance, resumable, and the evidence they make together."""

import csv
import io
import sys
import time
from collections.abc import Container, Mapping
from pathlib import Path

from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import COMPARISON, cell_folder, write_json, write_text
from fedmd.report.html.write import write_report
from fedmd.report.monitoring.progress import round_line
from fedmd.report.statistics.baselines import ARMS_CAPTION, comparison_rows
from fedmd.report.statistics.comparison import CAPTION, ArmInfo, clean_arms, compare, comparison_table
from fedmd.report.statistics.crosstab import CROSSED_CAPTION, crossed_tables
from fedmd.report.summary import read_summary
from fedmd.report.table import latex, markdown, terminal
from fedmd.runs.compose import Study
from fedmd.runs.launch import is_finished
from fedmd.runs.plan import arm_name
from fedmd.runs.simulation import Cell, simulate
from fedmd.types import Json, RoundReport


def run_study(study: Study) -> None:
    """Run what is not finished, seed by seed, then write the comparison.

    Leaves comparison.json, table.md, table.tex, report.html and results.csv (one row a finished cell, rewritten after
    each) in the study's folder. Raises ConfigError as `simulate` does, and for two arms that are the
    same defence without attack.
    """
    try:
        clean_arms(study.runs, arm_infos(study))
    except ValueError as error:  # said before hours of computing, not after
        raise ConfigError(f"compare.arms: {error}.") from error
    cells = cells_of(study)
    pending = {key: cell for key, cell in cells.items() if not is_finished(cell)}
    print(f"{len(cells)} cells, {len(cells) - len(pending)} finished before; folder: {study.folder}", flush=True)
    names = {cell.folder: f"{arm}, seed {seed}" for (arm, seed), cell in cells.items()}
    done = len(cells) - len(pending)
    began = time.perf_counter()

    def on_finished(cell: Cell, summary: Json) -> None:
        nonlocal done, began
        done += 1
        seconds, began = time.perf_counter() - began, time.perf_counter()
        final = 100 * summary["accuracy"]["final"]
        print(f"[{done:>3}/{len(cells)}] {names[cell.folder]:<32} final {final:5.1f} %  {seconds:6.1f} s", flush=True)
        write_results(study.folder, cells)

    simulate(list(pending.values()), on_round=_ticker, on_finished=on_finished)
    write_results(study.folder, cells)
    summaries = finished(cells)
    comparison = compare(
        summaries, arm_infos(study), baseline=study.baseline, frozen=study.frozen, table=_table(study, summaries)
    )
    crossed = crossed_tables(comparison)
    tables = [(rows, CROSSED_CAPTION) for rows in crossed.values()] or [(comparison_table(comparison), CAPTION)]
    write_json(study.folder / COMPARISON, comparison)
    rivals = [(rows, ARMS_CAPTION)] if (rows := comparison_rows(comparison)) else []
    write_text(study.folder / "table.md", "\n".join(markdown(*table) for table in tables + rivals))
    write_text(study.folder / "table.tex", "\n".join(latex(*table) for table in tables + rivals))
    print("\n" + "\n".join(terminal(*table) for table in tables) + f"\nfolder: {study.folder}", flush=True)
    print(f"report: {write_report(study.folder)}", flush=True)


def _table(study: Study, arms: Container[str]) -> Json | None:
    """Which finished arm is which cell, for a study that is a table."""
    if not study.rows:
        return None
    cells = {row: {column: arm_name(row, column) for column in study.columns} for row in study.rows}
    return {
        "rows": list(study.rows),
        "columns": list(study.columns),
        "cells": {row: {column: arm for column, arm in line.items() if arm in arms} for row, line in cells.items()},
    }


def cells_of(study: Study) -> dict[tuple[str, int], Cell]:
    """One cell per (arm, seed), seed by seed, so that an interrupted study is paired as far as it got.

    The one that was under way goes on from its checkpoint.
    """
    seeds = next(iter(study.runs.values()))
    return {
        (arm, seed): Cell(study.runs[arm][seed].config, cell_folder(study.folder, arm, seed), resume=True)
        for seed in seeds
        for arm in study.runs
    }


def finished(cells: Mapping[tuple[str, int], Cell]) -> dict[str, dict[int, Json]]:
    """`summaries[arm][seed]` of the finished cells."""
    summaries: dict[str, dict[int, Json]] = {}
    for (arm, seed), cell in cells.items():
        if is_finished(cell) and (summary := read_summary(cell.folder)) is not None:
            summaries.setdefault(arm, {})[seed] = summary
    return summaries


def arm_infos(study: Study) -> dict[str, ArmInfo]:
    """What each arm is. Arms whose server does the same share a defence, called after the attacked one of them."""
    configs = {arm: next(iter(runs.values())).config for arm, runs in study.runs.items()}
    attacked = {arm: _is_attacked(config) for arm, config in configs.items()}
    label: dict[str, str] = {}
    for arm in sorted(configs, key=lambda arm: not attacked[arm]):
        label.setdefault(_server_side(configs[arm]), arm)
    return {arm: ArmInfo(label[_server_side(config)], attacked[arm]) for arm, config in configs.items()}


def write_results(folder: Path, cells: Mapping[tuple[str, int], Cell]) -> None:
    """results.csv: one row a finished cell, every number of its summary."""
    rows = [
        {"arm": arm, "seed": seed, **_flat({k: v for k, v in summary.items() if k not in _NO_COLUMNS})}
        for arm, runs in finished(cells).items()
        for seed, summary in runs.items()
    ]
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", text.getvalue())


_NO_COLUMNS = ("schema", "seed", "config", "versions", "malicious_clients")


def _flat(tree: Json, prefix: str = "") -> Json:
    flat: Json = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _is_attacked(config: RunConfig) -> bool:
    return config.attack.name != "none" and config.attack.fraction > 0


def _server_side(config: RunConfig) -> str:
    """The run but for who attacks it, how it is watched, and on what machine."""
    return config.model_dump_json(exclude={"seed", "attack", "runtime", "observability", "audit"})


def _ticker(config: RunConfig, report: RoundReport) -> None:
    """The round under way, rewritten in place; only where somebody watches."""
    if config.runtime.progress and sys.stdout.isatty():
        print(f"\r{round_line(report, config.stream.rounds)[:110]:<110}", end="\r", flush=True)
