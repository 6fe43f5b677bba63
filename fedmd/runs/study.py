"""`fedmd compare`: arms times seeds on one Ray instance, resumable, and the evidence they make together."""

import csv
import io
from collections.abc import Container, Iterable, Mapping

import pandas as pd

from fedmd.attacks.base import attack_of
from fedmd.config import ConfigError, RunConfig
from fedmd.report.answer import study_answer
from fedmd.report.files import COMPARISON, cell_folder, read_summary
from fedmd.report.html.write import write_report
from fedmd.report.results import result_row, write_parquet
from fedmd.report.statistics.comparison import ArmInfo, clean_arms, compare
from fedmd.report.statistics.tables import (
    ARMS_CAPTION,
    CROSSTAB_CAPTION,
    CROSSTAB_DIFFERENCES_CAPTION,
    DETECTORS_CAPTION,
    DIFFERENCES_CAPTION,
    Rows,
    arms_table,
    comparison_detectors_table,
    crosstab_differences,
    crosstabs,
    differences_table,
)
from fedmd.report.table import latex, markdown, terminal, terminal_columns
from fedmd.rounds.folder import note_config, sole_server
from fedmd.runs.cell import Cell, CellsFailed, Watcher
from fedmd.runs.compose import make_folder
from fedmd.runs.launch import is_finished, refused_altogether
from fedmd.runs.plan import Plan, StudyRuns
from fedmd.runs.simulation import simulate
from fedmd.storage import write_json, write_text
from fedmd.types import Json

RESULTS = "results.csv"


def run_study(study: StudyRuns, watcher: Watcher) -> list[Cell]:
    """Run what is not finished, seed by seed, then write the comparison.

    Those of its runs come back in which every message was refused; a warning has said so.

    Leaves comparison.json, table.md, table.tex, report.html, results.csv and results.parquet (one row a finished cell,
    rewritten after each) in the study's folder. Raises ConfigError as `simulate` does, and for two arms that are the
    same defence without attack; CellsFailed when all of this is done, but for some cells.
    """
    infos = arm_infos(study)
    try:
        clean_arms(study.runs, infos)
    except ValueError as error:  # said before hours of computing, not after
        raise ConfigError(f"compare.arms: {error}.") from error
    cells = cells_of(study)
    pending = [cell for cell in cells.values() if not is_finished(cell)]
    before = len(cells) - len(pending)
    watcher.say(f"{len(cells)} cells, {before} finished before; folder: {study.folder}")
    for cell in pending:
        make_folder(cell.folder)
        with sole_server(cell.folder):  # said before anything is computed; and whoever watches knows what is to come
            note_config(cell.folder, cell.config)
    watcher.begin(pending, before)
    failures = simulate(pending, watcher, on_finished=lambda cell, summary: write_results(study, cells))
    watcher.doing("writing the comparison and the report")
    write_results(study, cells)
    summaries = finished(cells)
    if not summaries:
        raise CellsFailed(failures, len(cells))
    comparison = compare(
        summaries, infos, baseline=study.baseline, frozen=study.frozen, table=_table(study.plan, summaries)
    )
    write_json(study.folder / COMPARISON, comparison)
    tables = [
        *_captioned(crosstab_differences(comparison).values(), CROSSTAB_DIFFERENCES_CAPTION),
        *_captioned(crosstabs(comparison).values(), CROSSTAB_CAPTION),
    ]
    differences = [(rows, DIFFERENCES_CAPTION)] if (rows := differences_table(comparison)) else []
    tables = tables or [*differences, (arms_table(comparison), ARMS_CAPTION)]
    detectors = [(rows, DETECTORS_CAPTION)] if (rows := comparison_detectors_table(comparison)) else []
    write_text(study.folder / "table.md", "\n".join(markdown(*table) for table in tables + detectors))
    write_text(study.folder / "table.tex", "\n".join(latex(*table) for table in tables + detectors))
    shown = [terminal(*table, terminal_columns()) for table in tables]
    watcher.say("\n" + "\n".join([*shown, study_answer(comparison)]))
    watcher.say(f"folder: {study.folder}")
    watcher.say(f"report: {write_report(study.folder)}")
    if failures:
        raise CellsFailed(failures, len(cells))
    return refused_altogether([cell for cell in cells.values() if is_finished(cell)])


def _captioned(tables: Iterable[Rows], caption: str) -> list[tuple[Rows, str]]:
    """The tables, with what they have in common below the last one."""
    listed = [*tables]
    return [(rows, caption if number == len(listed) else "") for number, rows in enumerate(listed, start=1)]


def _table(plan: Plan, arms: Container[str]) -> Json | None:
    """Which finished arm is which cell, for a study that is a table."""
    if not plan.rows:
        return None
    return {
        "rows": {row: arm.label for row, arm in plan.rows.items()},
        "columns": {column: arm.label for column, arm in plan.columns.items()},
        "cells": {
            row: {column: arm for column, arm in line.items() if arm in arms} for row, line in plan.cells.items()
        },
    }


def cells_of(study: StudyRuns) -> dict[tuple[str, int], Cell]:
    """One cell per (arm, seed), seed by seed, so that an interrupted study is paired as far as it got.

    The one that was under way goes on from its checkpoint.
    """
    seeds = next(iter(study.runs.values()))
    return {
        (arm, seed): Cell(
            study.runs[arm][seed].config,
            cell_folder(study.folder, arm, seed),
            resume=True,
            label=f"{study.plan.arms[arm].label}, seed {seed}",
        )
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


def arm_infos(study: StudyRuns) -> dict[str, ArmInfo]:
    """What each arm is. Those whose server does the same share a defence, called after the attacked one of them."""
    configs = {arm: next(iter(runs.values())).config for arm, runs in study.runs.items()}
    attacked = {arm: _is_attacked(config) for arm, config in configs.items()}
    defense: dict[str, str] = {}
    attack: dict[str, str] = {}
    for arm in sorted(configs, key=lambda arm: not attacked[arm]):
        defense.setdefault(_server_side(configs[arm]), arm)
        attack.setdefault(configs[arm].attack.model_dump_json(), arm)
    return {
        arm: ArmInfo(
            study.plan.arms[arm].label,
            defense[_server_side(config)],
            attacked[arm],
            attack[config.attack.model_dump_json()],
        )
        for arm, config in configs.items()
    }


def write_results(study: StudyRuns, cells: Mapping[tuple[str, int], Cell]) -> None:
    """results.csv: one row a finished cell, every number of its summary."""
    rows = [
        result_row(arm, study.plan.arms[arm].label, seed, summary)
        for arm, runs in finished(cells).items()
        for seed, summary in runs.items()
    ]
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(study.folder / RESULTS, text.getvalue())
    write_parquet(pd.DataFrame(rows), study.folder)


def _is_attacked(config: RunConfig) -> bool:
    return bool(attack_of(config).phases) and config.attack.fraction > 0


def _server_side(config: RunConfig) -> str:
    """The run but for who attacks it, how it is watched, and on what machine."""
    return config.model_dump_json(exclude={"seed", "attack", "runtime", "observability", "audit", "tracking"})
