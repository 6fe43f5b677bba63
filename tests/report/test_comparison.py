"""Arms by seeds to means, paired differences and the tables of a study."""

import json

import pytest

from fedmd.report.statistics.comparison import ArmInfo, compare
from fedmd.report.statistics.tables import ARMS_CAPTION, arms_table, differences_table
from fedmd.report.table import cell_text, latex, markdown, terminal

ARMS = {
    "frozen": ArmInfo("frozen", "frozen", attacked=False),
    "no_attack": ArmInfo("no attack", "none", attacked=False),
    "undefended": ArmInfo("undefended", "none", attacked=True),
    "dsc_clean": ArmInfo("DSC clean", "dsc", attacked=False),
    "dsc": ArmInfo("DSC", "dsc", attacked=True),
}


def summary(final, *, rounds=20, auroc=None, corrected=0.0):
    return {
        "schema": 1,
        "seed": 0,
        "accuracy": {
            "burn_in": 0.8,
            "before_attack": 0.8,
            "before_trigger": 0.8,
            "after_trigger": None,
            "final": final,
        },
        "accumulation_loss": None,
        "trigger_drop": None,
        "rounds": rounds,
        "clients": 10,
        "malicious_clients": [1],
        "detection": {"sample": {"auroc": auroc, "n_clean": 5}, "client": {"auroc": None}},
        "defense": {"name": "x", "corrected_share": corrected, "rejected_share": 0.0},
        "wall_s": {"total": 8.0, "attack": None},
        "bytes_received": 1000,
        "versions": {"fedmd": "0.1.0"},
        "config": {"number": 3},
    }


def study():
    finals = {
        "frozen": [0.80, 0.80],
        "no_attack": [0.90, 0.94],
        "undefended": [0.50, 0.60],
        "dsc_clean": [0.89, 0.92],
        "dsc": [0.85, 0.87],
    }
    runs = {arm: {seed: summary(v) for seed, v in enumerate(values)} for arm, values in finals.items()}
    runs["dsc"][0] = summary(0.85, auroc=0.9, corrected=0.25)
    return runs


def test_paired_numbers_by_hand():
    result = compare(study(), ARMS)
    arms = result["arms"]
    assert result["seeds"] == [0, 1]
    assert arms["dsc"]["accuracy"]["final"]["mean"] == pytest.approx(0.86)
    assert arms["dsc"]["accuracy"]["final"]["ci95"] == pytest.approx(12.706205 * 0.01, rel=1e-6)
    for arm in ("dsc", "dsc_clean"):  # the defence's cost when nobody attacks, in both of its arms
        assert arms[arm]["clean_cost"]["values"] == pytest.approx([0.01, 0.02])
        assert arms[arm]["clean_cost"]["mean"] == pytest.approx(0.015)
    assert arms["frozen"]["clean_cost"]["mean"] == pytest.approx(0.12)
    for arm in ("no_attack", "undefended"):
        assert arms[arm]["clean_cost"]["mean"] is None
    assert arms["dsc"]["kept_gain"]["mean"] == pytest.approx(0.06 / 0.12)
    assert arms["dsc"]["kept_gain"]["values"] == pytest.approx([0.5, 0.5])
    assert arms["undefended"]["kept_gain"]["mean"] == pytest.approx(-0.25 / 0.12)
    assert arms["no_attack"]["kept_gain"]["mean"] == pytest.approx(1.0)
    assert arms["undefended"]["loss_to_attack"]["values"] == pytest.approx([0.40, 0.34])
    assert arms["dsc_clean"]["loss_to_attack"]["mean"] is None
    assert arms["dsc"]["info"] == {"label": "DSC", "defense": "dsc", "attacked": True, "attack": ""}
    json.dumps(result, allow_nan=False)


def test_differences_of_all_pairs():
    """Against the formula, and the other way round with the sign turned."""
    result = compare(study(), ARMS)
    assert set(result["paired"]) == set(ARMS)
    assert all(set(others) == set(ARMS) - {arm} for arm, others in result["paired"].items())
    found = result["paired"]["dsc"]["undefended"]["final"]  # 0.35 and 0.27
    assert found["values"] == pytest.approx([0.35, 0.27])
    assert (found["mean"], found["n"]) == (pytest.approx(0.31), 2)
    assert (found["low"], found["high"]) == pytest.approx((0.31 - 12.706205 * 0.04, 0.31 + 12.706205 * 0.04), rel=1e-6)
    turned = result["paired"]["undefended"]["dsc"]["final"]
    assert (turned["mean"], turned["low"], turned["high"]) == pytest.approx((-0.31, -found["high"], -found["low"]))
    assert result["paired"]["dsc"]["undefended"]["burn_in"]["values"] == [0.0, 0.0]
    assert "after_trigger" not in result["paired"]["dsc"]["undefended"]  # nobody measured it


def test_arms_without_a_common_seed_have_no_difference():
    runs = study()
    del runs["dsc"][0], runs["undefended"][1]
    paired = compare(runs, ARMS)["paired"]
    assert "undefended" not in paired["dsc"] and paired["dsc"]["frozen"]["final"]["n"] == 1


def test_the_undefended_arm_is_the_one_that_is_attacked_alike():
    attacked = {
        f"{defense}_{strength}": ArmInfo(f"{defense} {strength}", defense, True, strength)
        for defense in ("none", "dsc")
        for strength in ("weak", "strong")
    }
    arms = {"no_attack": ArmInfo("no attack", "none", False), **attacked}
    finals = {"no_attack": 0.9, "none_weak": 0.8, "none_strong": 0.5, "dsc_weak": 0.85, "dsc_strong": 0.8}
    runs = {arm: {0: summary(final), 1: summary(final + 0.01)} for arm, final in finals.items()}
    result = compare(runs, arms)
    assert result["undefended"]["dsc_weak"] == "none_weak" and result["undefended"]["dsc_strong"] == "none_strong"
    assert result["arms"]["dsc_strong"]["recovered"]["mean"] == pytest.approx(0.75)
    rows = {row["arm"]: {name: cell_text(cell) for name, cell in row.items()} for row in differences_table(result)}
    assert rows["dsc strong"] == {
        "arm": "dsc strong",
        "minus undefended": "30.0 [30.0, 30.0]",
        "minus no attack": "-10.0 [-10.0, -10.0]",
        "recovered": "75.0 ± 0.0",
    }
    assert rows["none weak"]["minus undefended"] == rows["none weak"]["recovered"] == "–"


def test_every_numeric_leaf_and_nothing_else():
    entry = compare(study(), ARMS)["arms"]["dsc"]
    added = {"info", "clean_cost", "kept_gain", "loss_to_attack", "recovered"}
    leaves = "accuracy accumulation_loss trigger_drop rounds clients detection defense wall_s bytes_received"
    assert set(entry) == {*leaves.split(), *added}
    assert set(entry["defense"]) == {"corrected_share", "rejected_share"}  # the name is no number
    assert entry["detection"]["sample"]["auroc"] == {"mean": 0.9, "ci95": None, "n": 1, "values": [0.9, None]}
    assert entry["wall_s"]["total"]["mean"] == 8.0
    assert entry["wall_s"]["attack"] == {"mean": None, "ci95": None, "n": 0, "values": [None, None]}


def test_missing_cells_are_paired_away():
    runs = study()
    del runs["dsc"][0], runs["no_attack"][1]
    result = compare(runs, ARMS)
    assert result["arms"]["dsc"]["accuracy"]["final"]["values"] == [None, 0.87]
    assert result["arms"]["dsc"]["kept_gain"]["mean"] is None
    assert result["arms"]["dsc_clean"]["clean_cost"]["values"] == [pytest.approx(0.01), None]
    alone = compare({"dsc": runs["dsc"]}, ARMS)["arms"]["dsc"]
    assert alone["clean_cost"]["n"] == alone["kept_gain"]["n"] == alone["loss_to_attack"]["n"] == 0
    waiting = compare(study() | {"dsc": {}}, ARMS)
    assert waiting["arms"]["dsc"]["accuracy"]["final"]["values"] == [None, None]
    assert "dsc" not in waiting["worst"] and len(arms_table(waiting)) == len(ARMS)
    with pytest.raises(ValueError, match="no arm has a finished run"):
        compare({"dsc": {}}, ARMS)


def test_worst_attack_of_a_defence():
    runs = study() | {"dsc_flips": {0: summary(0.7), 1: summary(0.9)}}
    arms = ARMS | {"dsc_flips": ArmInfo("DSC, flips", "dsc", attacked=True)}
    result = compare(runs, arms)
    assert (result["worst"]["dsc"]["arm"], result["worst"]["dsc"]["mean"]) == (
        "dsc_flips",
        pytest.approx(0.8),
    )
    assert set(result["worst"]) == {"none", "dsc"}
    by_arm = {row["arm"]: row for row in arms_table(result)}
    assert cell_text(by_arm["DSC"]["worst"]) == "80.0 (70.0, 90.0)"
    assert cell_text(by_arm["frozen"]["worst"]) == "–"


def test_attack_success_has_a_column_where_some_arm_measured_it():
    runs = study()
    for seed, run in runs["dsc"].items():
        run["attack_success"] = {"before_attack": 0.1, "final": 0.2 + 0.2 * seed}
    for run in runs["undefended"].values():
        run["attack_success"] = {"before_attack": None, "final": None}
    result = compare(runs, ARMS)
    assert result["arms"]["dsc"]["attack_success"]["final"]["mean"] == pytest.approx(0.3)
    shown = {row["arm"]: cell_text(row["attack success"]) for row in arms_table(result)}
    assert shown["DSC"] == "30.0 (20.0, 40.0)"  # ± 127.1 would say nothing
    assert {text for label, text in shown.items() if label != "DSC"} == {"–"}
    for entry in result["arms"].values():  # a comparison older than the measure
        del entry["attack_success"]
    assert "attack success" not in arms_table(result)[0]


def test_runs_of_unequal_length_are_named():
    runs = study()
    runs["undefended"][1]["rounds"] = 12
    runs["frozen"][0]["rounds"] = 0
    assert compare(runs, ARMS)["unequal_rounds"] == ["undefended"]


def test_two_clean_arms_of_one_defence_cannot_be_paired():
    runs = study() | {"dsc_twin": {0: summary(0.7)}}
    with pytest.raises(ValueError, match="'dsc_clean' and 'dsc_twin' are both 'dsc' without attack"):
        compare(runs, ARMS | {"dsc_twin": ArmInfo("DSC twin", "dsc", attacked=False)})


def test_other_names_for_the_anchors():
    runs = {"ceiling": study()["no_attack"], "floor": study()["frozen"], "dsc": study()["dsc"]}
    arms = {
        "ceiling": ArmInfo("ceiling", "none", False),
        "floor": ArmInfo("floor", "frozen", False),
        "dsc": ARMS["dsc"],
    }
    result = compare(runs, arms, baseline="ceiling", frozen="floor")
    assert result["arms"]["dsc"]["kept_gain"]["mean"] == pytest.approx(0.5)


def test_the_table():
    rows = arms_table(compare(study(), ARMS))
    columns = "arm,final,before attack,clean cost,AUROC,corrected,rejected"  # of a trigger nothing was measured
    assert list(rows[0]) == columns.split(",")
    dsc = {name: cell_text(cell) for name, cell in rows[-1].items()}
    assert dsc["final"] == "86.0 (85.0, 87.0)"
    assert dsc["before attack"] == "80.0 ± 0.0"
    assert dsc["AUROC"] == "0.900"
    assert "AUROC of what the defence holds against its threshold" in ARMS_CAPTION
    for render in (terminal, markdown, latex):
        assert "86.0" in render(rows, ARMS_CAPTION)


@pytest.mark.parametrize(
    ("auroc", "shown"), [([0.30, 0.32], "0.310 (0.300, 0.320)"), ([0.2, None], "0.550 (0.200, 0.900)")]
)
def test_the_table_shows_the_detectors_auroc_where_the_summary_has_it(auroc, shown):
    runs = study()
    for seed, value in enumerate(auroc):
        runs["dsc"][seed] = summary(0.85, auroc=0.9)
        if value is not None:
            runs["dsc"][seed]["detection"]["detector"] = {"sample": {"auroc": value}, "client": {"auroc": None}}
    assert cell_text(arms_table(compare(runs, ARMS))[-1]["AUROC"]) == shown
