"""report.html of the three kinds of folder: what is in it, how it is built, and that nothing escapes."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedmd.cli.main import main
from fedmd.report.html import write
from fedmd.report.html.arms_page import sweep_rows
from fedmd.report.html.clients import client_blocks
from fedmd.report.html.run_figures import accuracy_plot, detection_blocks, score_blocks
from fedmd.report.html.run_page import detection_table, phase_ends_table, rounds_table, run_cards
from fedmd.report.html.write import MAX_BYTES, report_html, write_report
from fedmd.report.loading import load
from fedmd.report.results import ReportError, Run
from fedmd.report.scores import held_scores
from fedmd.report.statistics.comparison import ArmInfo
from fedmd.report.table import cell_text
from fedmd.types import Action

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }} $\\bad$ _"
ARMS = {
    "frozen": ArmInfo("frozen", "frozen", False),
    "no_attack": ArmInfo("no attack", "undefended", False),
    "undefended": ArmInfo("undefended", "undefended", True),
    "dsc": ArmInfo("DSC", "dsc", True),
}
SECTIONS = {
    "run": ["accuracy", "discrepancy", "clients", "detection", "images", "numbers", "settings"],
    "comparison": ["table", "accuracy", "detection", "arms", "settings"],
    "sweep": ["table", "accuracy", "detection", "arms", "settings"],
}


class Page(HTMLParser):
    """Tags with their attributes, in order; whether tags close as they should."""

    VOID = ("meta", "link", "img", "path", "use", "rect", "image", "wbr")

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


DATA = {"type": "application/json"}  # a script that no browser runs


@pytest.fixture(scope="module")
def folders(tmp_path_factory, run_folder, comparison_folder):
    """A folder of every kind, with its report."""
    tmp_path = tmp_path_factory.mktemp("folders")
    run_folder(tmp_path / "run")
    comparison_folder(tmp_path / "comparison", ARMS)
    for name in ("dsc", "drop"):
        for seed in (0, 1):
            config = {"defense": {"name": name, "max_steps": len(name)}}
            run_folder(tmp_path / "sweep" / f"{name},seed={seed}", seed=seed, defense=name, config=config)
    for kind in SECTIONS:
        assert write_report(tmp_path / kind) == tmp_path / kind / "report.html"
    return tmp_path


@pytest.mark.parametrize("kind", SECTIONS)
def test_a_report_of_every_kind(folders, kind):
    path = folders / kind / "report.html"
    text = path.read_text()
    page = Page(text)
    assert path.stat().st_size < MAX_BYTES
    assert "://" not in text  # nothing to load, and to run only what is ours
    assert [attributes for attributes in page.all("script") if attributes != DATA] == [{}]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text and script == "".join(
        (Path(write.__file__).parent / name).read_text() for name in ("page.js", "follow.js")
    )
    for attributes in (attributes for _, attributes in page.tags):
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("href", "#").startswith(("#", "data:"))
    assert [a["aria-labelledby"] for a in page.all("section")] == ["headline", *SECTIONS[kind]]
    assert f">fedmd · {kind}<" in text
    for expected in (
        "Memorization discrepancy",
        "threshold",
        "ROC curve",
        "Precision-recall curve",
        "Clients by rounds",
    ):
        assert expected in text
    for expected in ("Learned from − poisoned, ×5", "▲ 1", "Versions", "python", "recovery"):
        assert expected in text
    assert ("± " in text) == (kind != "run")


@pytest.mark.parametrize("kind", SECTIONS)
def test_sane_for_keyboards_and_screen_readers(folders, kind):
    text = (folders / kind / "report.html").read_text()
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for _, a in page.tags if a.get("href", "").startswith("#")]
    links += re.findall(r"url\(#([^)]+)\)", text) + [a["aria-labelledby"] for a in page.all("section")]
    assert set(links) <= set(ids)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == len(page.all("main")) == 1
    assert all(a.get("scope") in ("col", "row") for a in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table")) > 2
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in page.all("svg"))
    assert all(a["alt"] for a in page.all("img")) and page.all("img")
    assert len(page.all("figcaption")) == len(page.all("figure"))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.all("a")[0] == {"class": "skip", "href": "#main"}


def test_the_same_folder_gives_the_same_bytes(folders, tmp_path):
    again = write_report(folders / "comparison", tmp_path / "again.html")
    assert again.read_bytes() == (folders / "comparison" / "report.html").read_bytes()


def detector_run(folder, make, stopping="per_sample"):
    """A run whose detector finds everything that the discrepancy, its negative, misses."""
    config = {"defense": {"name": "dsc", "detector": "historical_loss", "stopping": stopping}}
    return Run.read(make(folder, config=config))


def test_another_detector_is_called_by_its_name(tmp_path, run_folder):
    run = detector_run(tmp_path / "run", run_folder)
    text = write_report(run.folder).read_text()
    for expected in (
        ">Historical loss over time<",
        ">Historical loss by phase<",
        ">Historical loss (nats)<",
        ">Mean historical loss (nats)<",
        "Median historical loss of clean samples",
        "threshold (historical loss)",
    ):
        assert expected in text
    labels = " ".join(attributes["aria-label"] for attributes in Page(text).all("svg")).split("ROC curve. ")
    assert "discrepancy" not in labels[0]  # what is drawn there is the detector's
    assert text.count(">Memorization discrepancy</text>") == 2  # its curves, in the legends of ROC and PR


def test_both_scores_of_a_run_are_judged(tmp_path, run_folder):
    run = detector_run(tmp_path / "run", run_folder)
    own, other = run.summary["detection"]["detector"]["sample"], run.summary["detection"]["sample"]
    assert own["auroc"] > 0.8 and other["auroc"] == pytest.approx(1 - own["auroc"])
    table = detection_table(run.summary)
    assert table.header == ["measure", "Historical loss", "Memorization discrepancy"]
    assert table.rows[0] == ["AUROC, samples", f"{own['auroc']:.3f}", f"{other['auroc']:.3f}"]
    (card,) = (card for card in run_cards(run.summary) if card.label == "Detection AUROC")
    assert card.value == f"{own['auroc']:.3f}" and card.note.startswith("Historical loss; ")
    areas = f"historical loss {own['auroc']:.3f}, memorization discrepancy {other['auroc']:.3f}"
    assert areas in detection_blocks(run, "x")[0].caption
    auroc = cell_text(sweep_rows({"arm": {0: run}})[0]["AUROC"])
    assert auroc == f"{own['auroc']:.3f}"
    del run.summary["detection"]["detector"]  # as older runs
    assert cell_text(sweep_rows({"arm": {0: run}})[0]["AUROC"]) == f"{other['auroc']:.3f}"


def test_attack_success_is_shown_where_it_was_measured(tmp_path, run_folder):
    run, honest = Run.read(run_folder(tmp_path / "a", attack_success=0.375)), Run.read(run_folder(tmp_path / "b"))
    (card,) = (card for card in run_cards(run.summary) if card.label == "Attack success")
    assert card.value == "37.5 %"
    assert phase_ends_table(run.summary).header == ["end of phase", "accuracy (%)", "attack success (%)"]
    assert phase_ends_table(run.summary).rows[-1][2] == "37.5"
    assert "attack success (%)" in rounds_table(run).header
    assert "Attack success from 37.5 % to 37.5 %" in accuracy_plot(run, "x").caption
    rows = sweep_rows({"backdoor": {0: run}, "honest": {0: honest}})
    assert [cell_text(row["attack success"]) for row in rows] == ["37.5", "–"]

    for row in honest.metrics:  # as older runs
        del row["attack_success"]
    del honest.summary["attack_success"]
    assert not any(card.label == "Attack success" for card in run_cards(honest.summary))
    assert "attack success (%)" not in phase_ends_table(honest.summary).header + rounds_table(honest).header
    assert "ttack success" not in accuracy_plot(honest, "x").caption
    assert "attack success" not in sweep_rows({"honest": {0: honest}})[0]


def test_one_score_has_one_column_and_one_curve(tmp_path, run_folder):
    run = Run.read(run_folder(tmp_path / "run"))
    assert detection_table(run.summary).header == ["measure", "Memorization discrepancy"]
    assert "single samples" not in write_report(run.folder).read_text()


def test_a_threshold_on_means_is_said_and_counted_as_such(tmp_path, run_folder):
    run = detector_run(tmp_path / "run", run_folder, "per_client")
    note = "held against a client's mean of a round, not against single samples"
    assert all(note in block.caption for block in score_blocks(run, "x"))
    means = run.verdicts.groupby(["round", "client"])["before"].mean().reset_index()
    poisoned = run.truth.of(means.assign(index=0))
    tpr, fpr = ((means["before"] > 3.0)[chosen].mean() for chosen in (poisoned, ~poisoned))  # 4 samples a client
    expected = f"{100 * tpr:.0f} % of the poisoned, {100 * fpr:.1f} % of the clean. The threshold is {note}"
    assert expected in detection_blocks(run, "x")[0].caption


def test_what_is_held_against_the_threshold():
    verdicts = pd.DataFrame({"round": [0, 0, 0, 1], "client": [1, 1, 2, 1], "before": [1.0, 3.0, 8.0, 5.0]})
    assert held_scores(verdicts, "per_sample").tolist() == [1, 3, 8, 5]
    assert held_scores(verdicts, "per_client").tolist() == [2, 2, 8, 5]
    assert held_scores(verdicts, "batch_mean").tolist() == [4, 4, 4, 5]


def test_hostile_settings_and_names_are_text(tmp_path, run_folder, comparison_folder):
    run = run_folder(tmp_path / "<b>run", config={"data": {"name": HOSTILE}, HOSTILE: HOSTILE}, defense=HOSTILE)
    study = comparison_folder(tmp_path / "study", {"hostile": ArmInfo(HOSTILE, "hostile", True)}, seeds=(0,))
    for folder in (run, study):
        page = Page(write_report(folder).read_text())
        assert [a for a in page.all("script") if a != DATA] == [{}] and page.all("b") == []
        assert all(a["src"].startswith("data:") and "onerror" not in a for a in page.all("img"))
        assert "&lt;script&gt;alert(1)" in (folder / "report.html").read_text()
        assert "{{ 7 * 7 }}" in (folder / "report.html").read_text()


def test_the_size_has_a_limit(folders, monkeypatch):
    whole = (folders / "comparison" / "report.html").stat().st_size
    monkeypatch.setattr(write, "MAX_BYTES", whole)
    text = report_html(load(folders / "comparison"))
    assert len(text.encode()) < whole and "2 of 4 arms are here" in text


def test_a_sweep_is_called_by_what_varies_in_it(tmp_path, run_folder):
    for name in ("at", "dsc"):
        config = {"defense": {"name": name}, "data": {"name": "digits"}}
        run_folder(tmp_path / name, defense=name, config=config)
    html = report_html(load(tmp_path))
    assert "<h1>defense on digits</h1>" in html and f"<p>{tmp_path.name} · fedmd" in html
    assert '<th scope="row">defense=<wbr>at</th>' in html  # a line may end there, and nowhere in a word


def test_arms_of_a_sweep_differ_in_more_than_the_seed(tmp_path, run_folder):
    for name, steps, seed in (("dsc", 10, 0), ("dsc", 10, 1), ("at", 5, 0)):
        config = {"defense": {"name": name, "max_steps": steps}, "attack": {"fraction": 0.2}}
        run_folder(tmp_path / f"{name}{seed}", seed=seed, config=config)
    sweep = load(tmp_path)
    assert sweep.kind == "sweep"
    assert {arm: sorted(runs) for arm, runs in sweep.arms.items()} == {"defense=at": [0], "defense=dsc": [0, 1]}


def test_what_is_gone_from_a_folder_is_left_out(tmp_path, run_folder, comparison_folder):
    run = run_folder(tmp_path / "run")
    for name in ("metrics.jsonl", "verdicts.parquet", "truth.json", "example_images.npz"):
        (run / name).unlink()
    assert "no longer in the folder" in write_report(run).read_text()
    study = comparison_folder(tmp_path / "study", ARMS, seeds=(0,))
    for summary in study.glob("cells/*/*/summary.json"):
        summary.unlink()
    assert "Final accuracy in %, seed by seed" in write_report(study).read_text()


@pytest.mark.parametrize("malicious", [(), (1, 2, 3, 4)])
def test_nobody_malicious_and_nearly_everybody(tmp_path, run_folder, malicious):
    text = write_report(run_folder(tmp_path, malicious=malicious)).read_text()
    assert ("nothing to detect" in text) == (not malicious)


def test_folders_without_a_finished_run(tmp_path, run_folder):
    with pytest.raises(ReportError, match=r"nothing: is not a folder"):
        write_report(tmp_path / "nothing")
    with pytest.raises(ReportError, match=r"no finished run; expected summary.json of a run"):
        write_report(tmp_path)
    run = run_folder(tmp_path / "run")
    (run / "summary.json").unlink()
    with pytest.raises(ReportError, match=r"the run there is not finished"):
        write_report(run)


def call(capsys, *arguments):
    """Exit code, stdout and stderr of `fedmd report ...`."""
    with pytest.raises(SystemExit) as exit:
        main(["report", *map(str, arguments)])
    return exit.value.code, *capsys.readouterr()


def test_the_command_writes_into_the_folder_or_where_it_is_told(folders, tmp_path, capsys):
    run, elsewhere = folders / "run", tmp_path / "new" / "page.html"
    assert call(capsys, run) == (0, f"report: {run / 'report.html'}\n", "")
    assert call(capsys, run, "--output", elsewhere)[0] == 0
    assert elsewhere.read_bytes() == (run / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "missing argument 'PATH'"),
        (["a", "b"], "unexpected extra argument"),
        (["."], "no finished run; expected summary.json of a run"),
        (["nowhere"], "is not a folder"),
        ([".", "--fast"], "no such option '--fast'"),
        ([".", "--output"], "'--output' requires an argument"),
    ],
)
def test_one_sentence_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, out, error = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert words in error and error.count("\n") == 1 and "Traceback" not in error


def test_of_many_clients_the_most_suspected_are_there(tmp_path, record, round_report):
    """Client 7 of 400 is flagged, client 9's message was refused; the others follow by their mean score."""
    clients = np.arange(400)
    actions = [Action.REJECTED if client == 7 else Action.ACCEPTED for client in clients]
    rounds = [round_report(i, before=clients / 400, clients=clients, actions=actions) for i in range(2)]
    run = Run(record(tmp_path, *rounds), {"config": {}})
    table, more, follow = client_blocks(run)
    assert [row[0] for row in table.rows[:4]] == ["7", "9", "399", "398"] and len(table.rows) == 20
    assert table.rows[0][1] == "100.0" and more.folded == "280 of 380 more clients"
    assert follow.data["clients"]["7"]["flagged"] == [1.0, 1.0] and len(follow.data["clients"]) == 400
    assert follow.data["samples"]["7"]["1"] == [[7 % 2, 7, 0.0175, 0.00875, 0, "rejected"]]
    assert "9" in follow.data["clients"] and follow.data["clients"]["9"]["refused"] == {
        "0": "labels out of range", "1": "labels out of range",
    }  # fmt: skip


def test_of_many_samples_those_with_the_highest_scores_are_there(tmp_path, record, round_report, monkeypatch):
    monkeypatch.setattr("fedmd.report.html.clients.MOST_SAMPLES", 8)
    rounds = [
        round_report(i, before=[0.1, 0.4, 0.3, 0.2, 0.5, 0.6, 0.7, 0.8], clients=[0] * 4 + [1] * 4) for i in range(2)
    ]
    (*_, follow) = client_blocks(Run(record(tmp_path, *rounds), {"config": {}}))
    kept = [[sample[2] for sample in follow.data["samples"][client]["0"]] for client in ("0", "1")]
    assert kept == [[0.4, 0.3], [0.7, 0.8]] and "only those with the highest scores" in follow.caption
