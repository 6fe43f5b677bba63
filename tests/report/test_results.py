"""Runs and studies as Python objects, read from folders that hold known numbers."""

import shutil

import pytest
from matplotlib.figure import Figure

from fedmd.report.loading import load
from fedmd.report.results import ReportError, Run, Study
from fedmd.report.statistics.comparison import ArmInfo
from fedmd.types import Action

ARMS = {
    "no_attack": ArmInfo("no attack", "undefended", False),
    "undefended": ArmInfo("attacked, undefended", "undefended", True),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory, comparison_folder):
    return load(comparison_folder(tmp_path_factory.mktemp("study"), ARMS))


def test_a_run(tmp_path, run_folder):
    run = load(run_folder(tmp_path, config={"attack": {"fraction": 0.2}}))
    assert isinstance(run, Run) and run.config["attack"] == {"fraction": 0.2}
    assert run.rounds["phase"].tolist() == ["clean", "clean", "accumulative", "trigger", "recovery", "recovery"]
    assert run.rounds["accuracy"].iloc[-1] == run.summary["accuracy"]["final"]
    assert run.rounds["discrepancy.mean"].iloc[0] == pytest.approx(run.verdicts["before"][:20].mean())
    assert len(run.verdicts) == 6 * 20 and run.truth.malicious_clients == (1,)
    for what in ("accuracy", "scores", "clients"):
        assert isinstance(run.plot(what), Figure)
    html = run._repr_html_()
    assert "Final accuracy" in html and "data:image/png;base64," in html


def test_clients_of_a_run_by_hand(tmp_path, round_report, record, run_folder):
    folder = run_folder(tmp_path)  # for its summary
    actions = [Action.ACCEPTED, Action.REJECTED, Action.CORRECTED, Action.CORRECTED]
    summary = load(folder).summary
    record(folder, round_report(0, before=[1.0, 3.0, 0.5, 0.5], clients=[4, 4, 7, 7], actions=actions))
    clients = Run(folder, summary).clients  # client 9 was refused
    assert clients.index.tolist() == [4, 7, 9]
    assert clients["samples"].tolist() == [2, 2, 0] and clients["refused"].tolist() == [0, 0, 1]
    assert clients["mean_score"].tolist()[:2] == [2.0, 0.5]
    assert clients["corrected_share"].tolist()[:2] == [0.0, 1.0] and clients["rejected_share"].tolist()[:2] == [
        0.5,
        0.0,
    ]
    assert not clients["malicious"].any()


def test_a_run_of_which_only_the_summary_is_left(tmp_path, run_folder):
    folder = run_folder(tmp_path)
    for name in ("metrics.jsonl", "verdicts.parquet", "truth.json", "example_images.npz"):
        (folder / name).unlink()
    shutil.rmtree(folder / "verdicts")  # as at the end of a run
    run = load(folder)
    assert len(run.rounds) == len(run.verdicts) == len(run.clients) == 0 and run.example_images is None
    assert isinstance(run.plot("scores"), Figure)


def test_a_comparison(study):
    assert isinstance(study, Study) and study.kind == "comparison"
    assert {arm: list(runs) for arm, runs in study.arms.items()} == {"no_attack": [0, 1], "undefended": [0, 1]}
    assert list(study.by_label) == ["no attack", "attacked, undefended"]
    assert study.results[["arm", "label", "seed"]].values.tolist()[-1] == ["undefended", "attacked, undefended", 1]
    finals = study.results.pivot(index="arm", columns="seed", values="accuracy.final")
    difference = study.paired("undefended", "no_attack")
    assert difference["values"] == pytest.approx((finals.loc["undefended"] - finals.loc["no_attack"]).tolist())
    assert study.paired("undefended", "no_attack", "detection.sample.auroc")["n"] == 0  # nothing to detect in one
    with pytest.raises(ReportError, match="'other' is not an arm of this study; its arms are no_attack, undefended"):
        study.paired("undefended", "other")
    assert isinstance(study.plot(), Figure)
    html = study._repr_html_()
    assert "attacked, undefended" in html and "data:image/png;base64," in html


def test_summaries_from_before_the_baselines_had_their_name_are_read(tmp_path, run_folder):
    folder = run_folder(tmp_path)
    text = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(text.replace('"baselines"', '"rivals"').replace('"schema": 2', '"schema": 1'))
    assert '"rivals"' in (folder / "summary.json").read_text()
    summary = load(folder).summary
    assert summary["detection"]["baselines"] == {} and "baselines" in summary["wall_s"]
