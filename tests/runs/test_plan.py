"""Studies as tables: which arms come of rows and columns."""

import pytest

from fedmd.config import ConfigError
from fedmd.report.statistics.crosstab import crossed_tables
from fedmd.report.table import cell_text
from fedmd.runs.plan import Plan, arm_name, read_plan


def test_rows_times_columns() -> None:
    plan = read_plan({"alone": ["a=1"]}, {"r1": ["x=1"], "r2": []}, {"c1": ["y=1"], "c2": ["y=2", "z=3"]})
    assert plan.arms == {
        "alone": ("a=1",),
        "c1 · r1": ("y=1", "x=1"),
        "c2 · r1": ("y=2", "z=3", "x=1"),
        "c1 · r2": ("y=1",),
        "c2 · r2": ("y=2", "z=3"),
    }
    assert (plan.rows, plan.columns) == (("r1", "r2"), ("c1", "c2"))
    assert read_plan({"only": []}, None, {}) == Plan({"only": ()})


@pytest.mark.parametrize(
    ("arms", "rows", "columns", "named"),
    [
        ({}, {"r": []}, None, "compare.rows and compare.columns"),
        ({}, {"r": "x=1"}, {"c": []}, "compare.rows"),
        ({}, {"r": []}, ["c"], "compare.columns"),
        ({arm_name("r", "c"): []}, {"r": []}, {"c": []}, "compare.arms"),
    ],
)
def test_plans_that_are_none(arms: object, rows: object, columns: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_plan(arms, rows, columns)


def interval(mean: float | None, ci95: float | None = None) -> dict[str, float | None]:
    return {"mean": mean, "ci95": ci95}


def test_the_table_shows_each_cell_in_its_place() -> None:
    def entry(final: float, success: float | None, tpr: float | None, attacked: bool = True) -> dict[str, object]:
        flagged = {"tpr": interval(tpr), "fpr": interval(None)}
        return {
            "info": {"attacked": attacked},
            "accuracy": {"final": interval(final, 0.01)},
            "attack_success": {"final": interval(success)},
            "detection": {"flagged": flagged},
        }

    arms = {"c1 · r1": entry(0.9, None, None), "c2 · r1": entry(0.8, None, 1.0), "c1 · r2": entry(0.7, 0.25, None)}
    arms["c1 · r0"] = entry(0.1, None, None, attacked=False)  # nobody attacks, so it is no worst attack
    # one cell is not finished
    cells = {"r1": {"c1": "c1 · r1", "c2": "c2 · r1"}, "r2": {"c1": "c1 · r2"}, "r0": {"c1": "c1 · r0"}}
    comparison = {"arms": arms, "table": {"rows": ["r1", "r2", "r0"], "columns": ["c1", "c2"], "cells": cells}}
    tables = crossed_tables(comparison)
    shown = {
        title: [{name: cell_text(cell) for name, cell in row.items()} for row in rows] for title, rows in tables.items()
    }
    assert shown == {
        "final accuracy": [
            {"final accuracy": "r1", "c1": "90.0 ± 1.0", "c2": "80.0 ± 1.0"},
            {"final accuracy": "r2", "c1": "70.0 ± 1.0", "c2": "–"},
            {"final accuracy": "r0", "c1": "10.0 ± 1.0", "c2": "–"},
            {"final accuracy": "worst attack", "c1": "70.0 ± 1.0", "c2": "80.0 ± 1.0"},
        ],
        "attack success": [{"attack success": "r2", "c1": "25.0"}],
        "TPR": [{"TPR": "r1", "c2": "100.0"}],
    }
    assert crossed_tables({"arms": arms, "table": None}) == {}
