"""Cells, and tables for the terminal, Markdown and LaTeX."""

import pytest

from fedmd.report.statistics.intervals import mean_interval, paired_intervals
from fedmd.report.table import (
    Estimate,
    cell_text,
    latex,
    markdown,
    percent,
    plain,
    points,
    rate,
    share,
    skewness,
    terminal,
)

ROWS = [
    {"arm": "DSC & more", "final": Estimate(0.8734, 0.0119, 100, 1), "AUROC": Estimate(0.97251, None)},
    {"arm": "none", "final": Estimate(0.5, None, 100, 1), "AUROC": Estimate(None)},
    {"arm": "AT", "final": Estimate(-0.051, 0.1, 100, 1)},
]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (Estimate(0.8734, 0.0119, 100, 1), "87.3 ± 1.2"),
        (Estimate(0.8734, None, 100, 1), "87.3"),
        (Estimate(None, None), "–"),
        (Estimate(-0.0001, None, 100, 1), "0.0"),
        (percent(mean_interval([0.5])), "50.0"),
        (percent(mean_interval([0.5, 0.5])), "50.0 ± 0.0"),
        (plain(mean_interval([0.5, None])), "0.500"),
        (percent(mean_interval([0.1, 0.6, 0.6])), "43.3 (10.0, 60.0, 60.0)"),  # ± 71.7 says nothing
        (share(mean_interval([0.9, 1.0])), "95.0 (90.0, 100.0)"),  # ± 63.5
        (share(mean_interval([0.98, 1.0, 1.0])), "99.3 [96.5, 100.0]"),  # ± 4.3027 · 1.1547 / √3 = 2.8685
        (share(mean_interval([0.0, 0.02])), "1.0 (0.0, 2.0)"),  # ± 12.7 says less than the two
        (share(mean_interval([1.0, 1.0, 1.0])), "100.0 ± 0.0"),
        (rate(mean_interval([0.98, 1.0, 1.0])), "0.993 [0.965, 1.000]"),
        (percent(mean_interval([0.98, 1.0, 1.0])), "99.3 ± 2.9"),  # a ratio or a difference may pass 100 %
        (points(paired_intervals([[0.08, 0.10, 0.12]])[0]), "10.0 [5.0, 15.0]"),
        (points(paired_intervals([[0.1, None]])[0]), "10.0"),
        (points(paired_intervals([[0.1, 0.9]], limit=1.0)[0]), "50.0 (10.0, 90.0)"),
        (Estimate(0.1, ends=(0.0, 0.2), bootstrap=(0.05, 0.3), scale=100, digits=1), "10.0 [0.0, 20.0; 5.0, 30.0]"),
        ("text", "text"),
    ],
)
def test_cells(cell, text):
    assert cell_text(cell) == text


def test_the_bootstrap_stands_beside_few_skewed_differences():
    assert skewness([0.0, 0.0, 0.0, 0.0, 1.0]) == pytest.approx(1.5)  # (4/5 - 1/5) / √(4/25)
    assert skewness([1.0, 2.0, 3.0]) == skewness([1.0, 1.0]) == 0.0
    assert ";" not in cell_text(points(paired_intervals([[0.1, 0.2, 0.3]])[0]))
    skewed = [0.01, 0.02, 0.02, 0.03, 0.30]
    assert cell_text(points(paired_intervals([skewed])[0])).count(";") == 1
    assert ";" not in cell_text(points(paired_intervals([skewed * 3])[0]))  # of many a mean is normal enough


def test_terminal():
    assert terminal(ROWS, "in %") == (
        "arm               final  AUROC\n"
        "──────────  ───────────  ─────\n"
        "DSC & more   87.3 ± 1.2  0.973\n"
        "none               50.0      –\n"
        "AT          -5.1 ± 10.0      –\n"
        "in %\n"
    )


def test_a_narrow_terminal_has_the_columns_below_each_other():
    assert terminal(ROWS, "in % of all", columns=24) == (
        "arm               final\n"
        "──────────  ───────────\n"
        "DSC & more   87.3 ± 1.2\n"
        "none               50.0\n"
        "AT          -5.1 ± 10.0\n"
        "\n"
        "arm         AUROC\n"
        "──────────  ─────\n"
        "DSC & more  0.973\n"
        "none            –\n"
        "AT              –\n"
        "in % of all\n"
    )
    assert terminal(ROWS, columns=30) == terminal(ROWS)
    assert "\n\n" in terminal(ROWS, columns=29)
    assert terminal(ROWS, columns=1).count("DSC & more") == 2  # no part without a column of its own


def test_markdown():
    assert markdown([{"a|b": "x", "n": Estimate(1.0, None, 1, 0)}]) == "| a\\|b | n |\n|:---|---:|\n| x | 1 |\n"
    assert markdown(ROWS, "in %").endswith("| AT | -5.1 ± 10.0 | – |\n\nin %\n")


def test_latex():
    assert latex(ROWS) == (
        "\\begin{tabular}{lrr}\n\\toprule\narm & final & AUROC \\\\\n\\midrule\n"
        "DSC \\& more & 87.3 $\\pm$ 1.2 & 0.973 \\\\\nnone & 50.0 & -- \\\\\n"
        "AT & $-$5.1 $\\pm$ 10.0 & -- \\\\\n\\bottomrule\n\\end{tabular}\n"
    )
    with_caption = latex([{"a_b": "50% $x$ φ = \\{}"}], "in %")
    assert "\\caption{in \\%}" in with_caption and with_caption.endswith("\\end{table}\n")
    assert "a\\_b" in with_caption
    assert "50\\% \\$x\\$ $\\varphi$ = \\textbackslash{}\\{\\}" in with_caption


def test_no_rows():
    assert terminal([]) == "\n\n"
    assert "\\begin{tabular}" in latex([])
