"""summary.json of hand-written rounds with known answers."""

import json
from dataclasses import replace

import pytest

from fedmd.report.files import Truth, read_summary, write_summary
from fedmd.report.summary import STAGES, summarise
from fedmd.types import Action

NAN = float("nan")
A, C, R = Action.ACCEPTED, Action.CORRECTED, Action.REJECTED


def summary_of(folder, truth=None, **changes):
    arguments = {
        "truth": truth or Truth((1,), (3, 4, 5)),
        "burn_in_accuracy": 0.5,
        "defense_name": "dsc",
        "scores": {"held": "discrepancy", "judges": True, "detectors": {}},
        "n_clients": 10,
        "wall_s": {"total": 30.0, "startup": 4.0},
        "seed": 7,
        "config": {"attack": {"fraction": 0.1}, "list": (1, 2)},
        "versions": {"fedmd": "0.1.0"},
    }
    return summarise(folder, **(arguments | changes))


def accuracies(summary):
    order = ("burn_in", "before_attack", "before_trigger", "after_trigger", "final")
    return [summary["accuracy"][key] for key in order]


@pytest.fixture
def attacked(tmp_path, round_report, record):
    """Client 1 is malicious; two samples a client and round, clients 0 and 1."""
    return record(
        tmp_path,
        round_report(1, "clean", accuracy=0.6, before=[0.1, 0.1, 0.1, 0.1], wall_s={"step": 1.0}),
        round_report(2, "clean", accuracy=0.7, before=[0.1, 0.1, 0.1, 0.1], wall_s={"step": 2.0}),
        round_report(
            3,
            "accumulative",
            accuracy=0.65,
            before=[0.1, 0.3, 0.2, 0.8],
            actions=[A, C, A, C],
            steps=[0, 4, 0, 8],
            wall_s={"step": 1.0, "attack": 2.0, "aggregation": 9.0},
        ),
        round_report(4, "accumulative", accuracy=None, before=[0.1, 0.1, 0.9, 0.9], actions=[A, A, R, R]),
        round_report(5, "trigger", accuracy=0.25, before=[0.1, NAN, NAN, 0.9], wall_s={"step": 1.0}),
        round_report(6, "recovery", accuracy=0.4, before=[0.1, 0.1, 0.1, 0.1], wall_s={"step": 1.0}),
    )


def test_an_attacked_run_with_known_answers(attacked):
    summary = summary_of(attacked)
    assert accuracies(summary) == [0.5, 0.7, 0.65, 0.25, 0.4]
    assert summary["accumulation_loss"] == pytest.approx(0.05)
    assert summary["trigger_drop"] == pytest.approx(0.4)
    assert (summary["schema"], summary["rounds"], summary["clients"]) == (2, 6, 10)
    assert (summary["seed"], summary["malicious_clients"]) == (7, [1])
    # poisoned: 0.2, 0.8, 0.9, 0.9, 0.9 of client 1 in rounds 3-5; of the 17 clean ones only 0.3 exceeds 0.2
    sample = summary["detection"]["sample"]
    assert (sample["n_poisoned"], sample["n_clean"]) == (5, 17)
    assert sample["auroc"] == pytest.approx(1 - 1 / (5 * 17))
    assert sample["tpr_at_fpr_05"] == pytest.approx(0.8)  # one false alarm would be 1/17 > 5 %
    assert sample["average_precision"] == pytest.approx((4 + 5 / 6) / 5)
    assert summary["detection"]["client"] == {"auroc": 1.0}
    defense = summary["defense"]
    assert defense["name"] == "dsc"
    assert defense["corrected_share"] == pytest.approx(2 / 24)
    assert defense["rejected_share"] == pytest.approx(2 / 24)
    assert defense["mean_steps"] == pytest.approx(12 / 24)
    assert list(summary["wall_s"]) == list(STAGES)
    assert summary["wall_s"] == {
        "total": 30.0,
        "startup": 4.0,
        "attack": 2.0,
        "local_training": None,
        "screening": None,
        "baselines": None,
        "correction": None,
        "guard": None,
        "step": 6.5,
        "evaluation": None,
        "transport": None,
    }
    assert summary["bytes_received"] == 2100
    assert summary["config"] == {"attack": {"fraction": 0.1}, "list": [1, 2]}
    assert summary["versions"] == {"fedmd": "0.1.0"}


def test_exactly_the_keys_of_the_schema(attacked):
    keys = (
        "schema seed accuracy attack_success accumulation_loss trigger_drop rounds clients malicious_clients detection"
    )
    assert set(summary_of(attacked)) == {
        *keys.split(),
        "defense",
        "scores",
        "wall_s",
        "bytes_received",
        "versions",
        "config",
    }


@pytest.mark.parametrize(
    ("rounds", "expected", "loss", "drop"),
    [
        ([], [0.5, 0.5, 0.5, None, 0.5], None, None),
        ([("clean", 0.6)], [0.5, 0.6, 0.6, None, 0.6], None, None),
        ([("clean", None)], [0.5, 0.5, 0.5, None, 0.5], None, None),
        ([("trigger", 0.25)], [0.5, 0.5, 0.5, 0.25, 0.25], None, 0.25),
        ([("accumulative", 0.25)], [0.5, 0.5, 0.25, None, 0.25], 0.25, None),
        ([("accumulative", 0.25), ("trigger", None)], [0.5, 0.5, 0.25, 0.25, 0.25], 0.25, 0.0),
        (
            [("clean", 0.75), ("clean", None), ("trigger", 0.5), ("recovery", 0.7)],
            [0.5, 0.75, 0.75, 0.5, 0.7],
            None,
            0.25,
        ),
    ],
)
def test_phases_that_are_missing(tmp_path, round_report, record, rounds, expected, loss, drop):
    reports = [round_report(i, phase, accuracy=value) for i, (phase, value) in enumerate(rounds, start=1)]
    summary = summary_of(record(tmp_path, *reports))
    assert accuracies(summary) == expected
    assert (summary["accumulation_loss"], summary["trigger_drop"]) == (loss, drop)


def test_an_honest_run_has_no_loss_and_no_drop(attacked):
    summary = summary_of(attacked, Truth((), ()))
    assert accuracies(summary) == [0.5, 0.7, 0.65, 0.25, 0.4]
    assert (summary["accumulation_loss"], summary["trigger_drop"]) == (None, None)


def test_attack_success_at_the_ends_of_the_phases(tmp_path, round_report, record):
    rates = [("clean", 0.1), ("accumulative", 0.3), ("accumulative", None), ("trigger", 0.6), ("recovery", 0.5)]
    reports = [round_report(i, phase, attack_success=rate) for i, (phase, rate) in enumerate(rates)]
    summary = summary_of(record(tmp_path, *reports), burn_in_attack_success=0.05)
    order = ("burn_in", "before_attack", "before_trigger", "after_trigger", "final")
    assert [summary["attack_success"][key] for key in order] == [0.05, 0.1, 0.3, 0.6, 0.5]
    assert set(summary["accuracy"].values()) == {0.5}


def test_only_the_stamped_samples_of_a_batch_count_as_poisoned(tmp_path, round_report, record):
    """Two samples a client and round, of which the first is poisoned: 0.9 above all clean ones but 0.95."""
    before = [0.1, 0.2, 0.9, 0.95]
    folder = record(
        tmp_path, round_report(0, "clean", before=[0.1] * 4), round_report(1, "accumulative", before=before)
    )
    sample = summary_of(folder, Truth((1,), (1,), 1))["detection"]["sample"]
    assert (sample["n_poisoned"], sample["n_clean"]) == (1, 7)
    assert sample["auroc"] == pytest.approx(6 / 7)


def test_undefined_values_are_null(tmp_path, round_report, record):
    folder = record(tmp_path, round_report(1, "trigger", accuracy=None, before=[], loss=None))
    summary = summary_of(folder, Truth((), ()), burn_in_accuracy=None, wall_s={"total": NAN}, config={"x": NAN})
    assert accuracies(summary) == [None] * 5
    assert summary["trigger_drop"] is None
    assert summary["attack_success"] == dict.fromkeys(summary["accuracy"])
    assert summary["detection"]["sample"] == {
        "auroc": None,
        "average_precision": None,
        "tpr_at_fpr_05": None,
        "n_poisoned": 0,
        "n_clean": 0,
    }
    assert summary["defense"] == {
        "name": "dsc",
        "corrected_share": None,
        "rejected_share": None,
        "mean_steps": None,
    }
    assert (summary["wall_s"]["total"], summary["config"]) == (None, {"x": None})


def test_seconds_passed_in_win(attacked):
    assert summary_of(attacked, wall_s={"step": 99.0})["wall_s"]["step"] == 99.0


def test_the_summary_marks_a_finished_run(attacked):
    assert read_summary(attacked) is None
    summary = summary_of(attacked)
    write_summary(attacked, summary)
    assert read_summary(attacked) == summary == json.loads((attacked / "summary.json").read_text())
    assert not list(attacked.glob("*.tmp"))


def test_whom_the_evidence_accused(tmp_path, round_report, record):
    """Clients 0 to 2, of whom 1 and 2 attack from round 1 on; 1 is accused twice, 0 wrongly, 2 before it attacks."""
    rounds = [round_report(number, before=[0.1] * 6) for number in range(4)]
    alarms = [(2,), (), (0, 1), (1,)]
    folder = record(tmp_path, *(replace(report, alarms=each) for report, each in zip(rounds, alarms, strict=True)))
    config = {"quarantine": {"name": "evidence", "false_alarms": 50}}
    summary = summary_of(folder, Truth((1, 2), (1, 2, 3)), config=config)
    assert summary["quarantine"] == {
        "stated": 50,
        "honest_rounds": 4,
        "false_alarms": 1,
        "per_1000": 250.0,
        "malicious": 2,
        "caught": 1,
        "rounds_to_detection": 2.0,
    }
    assert "quarantine" not in summary_of(folder)
