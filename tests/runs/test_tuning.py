"""A search: its space from overrides or from `tune.space`, its trials on tuning seeds, what it leaves."""

import csv
from pathlib import Path

import pytest

from fedmd.cli.main import main
from fedmd.config import ConfigError
from fedmd.runs.tuning import TRIALS, compose_search

OPTUNA = "hydra/sweeper=optuna"


def test_the_worked_example_searches_on_tuning_seeds(tmp_path: Path) -> None:
    search = compose_search(["experiment=tune", OPTUNA, "tune.trials=3", f"hydra.sweep.dir={tmp_path}"])
    assert set(search.space) == {"defense.step_size", "defense.radius", "threshold.fpr"}
    assert search.tune.trials == 3 and min(search.tune.seeds) >= 100
    runs = search.runs(1, {"defense.radius": 0.25})
    assert [run.config.seed for run in runs] == [100, 101]
    assert [run.folder for run in runs] == [tmp_path / "trial-001/seed-100", tmp_path / "trial-001/seed-101"]
    assert runs[0].config.defense.params.radius == 0.25


def test_spaces_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    odd = "# @package _global_\ntune: {space: {defense.radius: 0.2}}\n"
    (tmp_path / "experiment" / "odd.yaml").write_text(odd)
    for overrides, words in (
        ([f"hydra.searchpath=[file://{tmp_path}]", "experiment=odd"], "tune.space: defense.radius=0.2 is one value"),
        (["defense.radiu=interval(0,1)"], "defense.radiu: unknown key"),
        (["defense=none", "threshold.fpr=interval(0.1,0.2)"], "threshold.fpr: defense=none goes by no threshold"),
        (["attack.fraction=0.1,0.2", "tune.trials=0"], "tune.trials: "),
        (["attack.fraction=0.1,0.2", "hydra.run.dir=x"], "hydra.run.dir: "),
    ):
        with pytest.raises(ConfigError, match=f"^{words.replace('.', '[.]')}"):
            compose_search([OPTUNA, *overrides])


@pytest.mark.slow
def test_a_search_leaves_its_trials_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    said = ["run", "-m", OPTUNA, "experiment=smoke", "runtime.engine=inline", "tune.trials=3", "tune.seeds=[100]"]
    said += [
        "training.online.lr=tag(log,interval(0.01,0.2))",
        "defense=choice(drop,dsc)",
        f"hydra.sweep.dir={tmp_path}/s",
    ]
    printed, times = [], []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            main(said)
        assert ended.value.code == 0
        printed.append([line for line in capsys.readouterr().out.splitlines() if line[:1] in "[b"])
        times.append({path: path.stat().st_mtime_ns for path in (tmp_path / "s").rglob("summary.json")})
    assert printed[0] == printed[1] and times[0] == times[1] and len(times[0]) == 3  # finished runs are skipped
    with (tmp_path / "s" / TRIALS).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == ["0", "1", "2"]
    best = max(rows, key=lambda row: float(row["accuracy.final"]))
    assert f"training.online.lr={best['training.online.lr']} defense={best['defense']}" in printed[0][-1]
    assert (tmp_path / "s" / "report.html").exists()
