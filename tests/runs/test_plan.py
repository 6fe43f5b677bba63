"""Studies: their arms, written out or as a table, with an id for folders and files and a label for people."""

import pytest

from fedmd.config import ConfigError
from fedmd.report.statistics.comparison import paired
from fedmd.report.statistics.intervals import mean_interval
from fedmd.report.statistics.tables import crosstab_differences, crosstabs
from fedmd.report.table import cell_text
from fedmd.runs.plan import Arm, cell_id, read_plan


def test_arms_have_an_id_and_a_label() -> None:
    plan = read_plan({"plain": ["a=1"], "dsc": {"label": "DSC, no attack", "overrides": ["b=2"]}}, None, {})
    assert plan.arms == {"plain": Arm("plain", ("a=1",)), "dsc": Arm("DSC, no attack", ("b=2",))}
    assert plan.rows == plan.columns == {}


def test_rows_times_columns() -> None:
    rows = {"r1": {"label": "row 1", "overrides": ["x=1"]}, "r2": []}
    plan = read_plan({"alone": ["a=1"]}, rows, {"c1": ["y=1"], "c2": ["y=2", "z=3"]})
    assert plan.arms == {
        "alone": Arm("alone", ("a=1",)),
        "c1_r1": Arm("c1 · row 1", ("y=1", "x=1")),
        "c2_r1": Arm("c2 · row 1", ("y=2", "z=3", "x=1")),
        "c1_r2": Arm("c1 · r2", ("y=1",)),
        "c2_r2": Arm("c2 · r2", ("y=2", "z=3")),
    }
    assert plan.cells == {"r1": {"c1": "c1_r1", "c2": "c2_r1"}, "r2": {"c1": "c1_r2", "c2": "c2_r2"}}


@pytest.mark.parametrize(
    ("arms", "rows", "columns", "words"),
    [
        ({}, {"r": []}, None, ["compare.rows and compare.columns"]),
        ({}, {"r": "x=1"}, {"c": []}, ["compare.rows", "lists of overrides"]),
        ({}, {"r": []}, ["c"], ["compare.columns", "lists of overrides"]),
        ({"a": {"label": "A"}}, None, None, ["compare.arms", "lists of overrides"]),
        ({"a": {"name": "A", "overrides": []}}, None, None, ["compare.arms", "lists of overrides"]),
        ({cell_id("r", "c"): []}, {"r": []}, {"c": []}, ["compare.arms", "'c_r' is there twice"]),
        ({}, {"b_c": [], "c": []}, {"a": [], "a_b": []}, ["compare.arms", "'a_b_c' is there twice"]),
        ({"dsc": [], "DSC": []}, None, None, ["compare.arms", "id 'dsc' is there twice"]),
        ({"a": [], "b": {"label": "a", "overrides": []}}, None, None, ["compare.arms", "label 'a' is there twice"]),
        *(
            ({name: []}, None, None, ["compare.arms", repr(name), "ASCII letters, digits, _ and -"])
            for name in ("", "a b", "φ", "..", "a/b", "-x", "x" * 101, "a\n")
        ),
    ],
)
def test_plans_that_are_none(arms: object, rows: object, columns: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read_plan(arms, rows, columns)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


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

    arms = {"c1_r1": entry(0.9, None, None), "c2_r1": entry(0.8, None, 1.0), "c1_r2": entry(0.7, 0.25, None)}
    arms["c1_r0"] = entry(0.1, None, None, attacked=False)  # nobody attacks, so it is no worst attack
    # one cell is not finished
    cells = {"r1": {"c1": "c1_r1", "c2": "c2_r1"}, "r2": {"c1": "c1_r2"}, "r0": {"c1": "c1_r0"}}
    rows = {"r1": "R 1", "r2": "R 2", "r0": "R 0"}
    comparison = {"arms": arms, "table": {"rows": rows, "columns": {"c1": "C 1", "c2": "C 2"}, "cells": cells}}
    tables = crosstabs(comparison)
    shown = {
        title: [{name: cell_text(cell) for name, cell in row.items()} for row in rows] for title, rows in tables.items()
    }
    assert shown == {
        "final accuracy": [
            {"final accuracy": "R 1", "C 1": "90.0 ± 1.0", "C 2": "80.0 ± 1.0"},
            {"final accuracy": "R 2", "C 1": "70.0 ± 1.0", "C 2": "–"},
            {"final accuracy": "R 0", "C 1": "10.0 ± 1.0", "C 2": "–"},
            {"final accuracy": "worst attack", "C 1": "70.0 ± 1.0", "C 2": "80.0 ± 1.0"},
        ],
        "attack success": [{"attack success": "R 2", "C 1": "25.0"}],
        "TPR": [{"TPR": "R 1", "C 2": "100.0"}],
    }
    assert crosstabs({"arms": arms, "table": None}) == {}


def test_differences_come_in_the_same_places() -> None:
    """Of the attacked arm from the undefended one, attacked alike; of all from the one that nobody attacks."""
    finals = {"none_r0": [0.9, 0.8], "dsc_r0": [0.88, 0.8], "none_r1": [0.5, 0.6], "dsc_r1": [0.8, 0.7]}
    arms = {
        arm: {"info": {"attacked": arm.endswith("r1")}, "accuracy": {"final": mean_interval(values)}}
        for arm, values in finals.items()
    }
    comparison = {
        "arms": arms,
        "paired": paired(arms),
        "baseline": "none_r0",
        "undefended": {"none_r1": "none_r1", "dsc_r1": "none_r1"},
        "table": {
            "rows": {"r0": "no attack", "r1": "φ = 0.2"},
            "columns": {"none": "none", "dsc": "DSC"},
            "cells": {row: {defense: f"{defense}_{row}" for defense in ("none", "dsc")} for row in ("r0", "r1")},
        },
    }
    means = {
        title: [[cell if isinstance(cell, str) else cell.mean for cell in row.values()] for row in rows]
        for title, rows in crosstab_differences(comparison).items()
    }
    assert means == {
        "minus undefended": [["no attack", pytest.approx(-0.01)], ["φ = 0.2", pytest.approx(0.2)]],
        "minus no attack": [
            ["no attack", None, pytest.approx(-0.01)],
            ["φ = 0.2", pytest.approx(-0.3), pytest.approx(-0.1)],
        ],
    }
    assert crosstab_differences({**comparison, "table": None}) == {}
