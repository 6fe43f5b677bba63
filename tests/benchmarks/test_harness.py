"""The benchmark's harness on rows that are made up."""

import json
import subprocess
import sys
import time

import pytest

from simulations.benchmarks import __main__ as command
from simulations.benchmarks.harness import OtherProcesses, Row, interleaved, measure
from simulations.benchmarks.rows import all_rows

PROMISED = {  # as they were agreed on: goal, to reach, stretch
    "fedavg_workload": ("at most", 1.10, 1.03),
    "fedavg_workload_ray": ("at most", 1.35, 1.1),
    "overhead_demo": ("at most", 1.25, 1.1),
    "startup": ("at most", 2.0, 1.5),
    "study_speedup": ("at least", 1.8, 1.95),
    "population_time": ("at most", 1.15, 1.05),
    "population_memory": ("at most", 1.2, 1.05),
    "sampled_1000": ("at most", 1.2, 1.0),
    "updates_memory": ("at most", 1.2, 1.05),
    "empty_round_100": ("at least", 1.7, 2.0),
    "empty_round_1000": ("at least", 10.0, 25.0),
    "accumulative_one": ("at least", 1.7, 2.5),
    "accumulative_one_bf16": ("at least", 1.7, 3.0),
    "accumulative_ten": ("at least", 6.0, 10.0),
    "accumulative_peak_memory": ("at most", 0.5, 0.33),
    "dsc_20pct": ("at least", 4.0, 6.0),
    "dsc_clean_step": ("at most", 1.8, 1.5),
}


def row(goal="at most", pairs=lambda count: iter([(2.0, 1.0), (3.0, 1.0), (40.0, 10.0)]), name="made_up"):
    return Row(name, "made up", goal, 3.0, 2.0, pairs)


def test_a_row_is_the_median_of_its_pairs_ratios():
    assert measure(row(), 3).ratio == 3.0


def test_at_least_says_how_many_times_better_ours_is():
    found = measure(row("at least", lambda count: iter([(1.0, 4.0)])), 1)
    assert found.ratio == 4.0
    assert found.as_json()["reached"]


def test_pairs_are_interleaved_and_who_begins_changes():
    calls = []
    ours, baseline = lambda: calls.append("ours") or 1.0, lambda: calls.append("baseline") or 2.0
    assert list(interleaved(ours, baseline, 3)) == [(1.0, 2.0)] * 3
    assert calls == ["ours", "baseline", "baseline", "ours", "ours", "baseline"]


def test_a_row_that_fails_says_why_and_the_others_go_on(monkeypatch, capsys, tmp_path):
    def broken(count):
        yield 1.0, 2.0
        raise RuntimeError("no such luck")

    monkeypatch.setattr(command, "all_rows", lambda: {"bad": row(pairs=broken, name="bad"), "good": row(name="good")})
    assert command.main(["--out", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"bad": None, "good": 3.0}
    record = json.loads((tmp_path / "bench.json").read_text())
    assert record["rows"][0]["failure"] == "RuntimeError: no such luck"
    assert record["machine"]["cores"] >= 1
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")


def test_an_unknown_row_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["nonsense"])
    assert "nonsense" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_own_children_are_not_other_processes():
    clock = OtherProcesses()
    began = time.process_time()
    subprocess.run([sys.executable, "-c", "sum(range(10_000_000))"], check=True)
    mine = OtherProcesses._look()[2] - clock._before[2]
    assert mine >= time.process_time() - began  # the child's seconds are in it
    assert clock.cores() >= 0


def test_rows_have_the_goals_that_were_agreed_on():
    found = {name: (r.goal, r.to_reach, r.stretch) for name, r in all_rows().items()}
    assert found.items() <= PROMISED.items()
