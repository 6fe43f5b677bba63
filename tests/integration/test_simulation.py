"""Whole federations on Ray: the same numbers whatever the machine does, and run folders that add up."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedmd.config import ConfigError, RunConfig
from fedmd.runs.simulation import Cell, simulate

pytestmark = pytest.mark.timeout(600)
Metrics = Callable[[Path], list[dict[str, Any]]]

CLIENTS, BATCH, MALICIOUS = 4, 5, 2
PHASES = ["clean", "accumulative", "trigger", "recovery"]


# -- repeatable -------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers(runs: Any, metrics: Metrics) -> None:
    assert metrics(runs.folders["base"]) == metrics(runs.folders["again"])
    assert metrics(runs.folders["base"]) != metrics(runs.folders["other seed"])


def test_the_number_of_workers_and_nodes_changes_nothing(runs: Any, on_ray: Any, metrics: Metrics) -> None:
    base = metrics(runs.folders["base"])
    assert metrics(on_ray["base"]) == base
    assert metrics(runs.folders["two nodes"]) == base
    assert metrics(on_ray["two nodes"]) == base
    verdicts = [pd.read_parquet(folder / "verdicts.parquet") for folder in (runs.folders["base"], on_ray["base"])]
    pd.testing.assert_frame_equal(*verdicts, check_exact=True)


def test_the_number_of_workers_changes_no_update(runs: Any, on_ray: Any, metrics: Metrics) -> None:
    assert metrics(on_ray["update"]) == metrics(runs.folders["update"])
    verdicts = [pd.read_parquet(folder / "verdicts.parquet") for folder in (runs.folders["update"], on_ray["update"])]
    pd.testing.assert_frame_equal(*verdicts, check_exact=True)


def test_fraction_zero_is_no_attack(runs: Any, metrics: Metrics) -> None:
    assert metrics(runs.folders["fraction zero"]) == metrics(runs.folders["attack none"])
    attacked, clean = metrics(runs.folders["base"]), metrics(runs.folders["attack none"])
    assert attacked[0] == clean[0]  # the clean round
    assert all(attacked[round]["discrepancy"] != clean[round]["discrepancy"] for round in (1, 2, 3))


def test_the_net_of_these_tests_learns(runs: Any) -> None:
    """Or equal numbers would mean little."""
    summary = runs.summaries["attack none"]["accuracy"]
    assert summary["burn_in"] > 0.2
    assert len({line["accuracy"] for line in map(json.loads, lines(runs.folders["base"]))}) > 1


def lines(folder: Path) -> list[str]:
    return (folder / "metrics.jsonl").read_text().splitlines()


# -- what a run leaves ------------------------------------------------------------------------------------------

SCHEMA = {
    "schema": None,
    "accuracy": {"burn_in", "before_attack", "before_trigger", "after_trigger", "final"},
    "attack_success": {"burn_in", "before_attack", "before_trigger", "after_trigger", "final"},
    "accumulation_loss": None,
    "trigger_drop": None,
    "rounds": None,
    "clients": None,
    "malicious_clients": None,
    "detection": {"sample", "client", "detector", "flagged", "baselines"},
    "defense": {"name", "corrected_share", "rejected_share", "mean_steps"},
    "scores": {"held", "judges", "detectors"},
    "wall_s": {
        *("total", "startup", "attack", "local_training", "screening", "baselines", "correction", "guard"),
        *("step", "evaluation", "transport"),
    },
    "bytes_received": None,
    "seed": None,
    "versions": None,
    "config": None,
    "warnings": None,
    "audit_head": {"seq", "hash"},
}


def test_summary_has_exactly_the_keys_of_schema_2(runs: Any) -> None:
    for name, returned in runs.summaries.items():
        summary = json.loads((runs.folders[name] / "summary.json").read_text())
        assert summary == returned
        assert set(summary) == set(SCHEMA) and summary["schema"] == 2
        for key, inner in SCHEMA.items():
            assert inner is None or set(summary[key]) == inner, key
        sample = {"auroc", "average_precision", "tpr_at_fpr_05", "n_poisoned", "n_clean"}
        assert set(summary["detection"]["sample"]) == sample
        assert set(summary["detection"]["client"]) == {"auroc"}
        assert set(summary["detection"]["detector"]) == {"sample", "client"}
        assert RunConfig.parse(summary["config"]) == runs.configs[name]


def test_summary_adds_up(runs: Any, metrics: Metrics) -> None:
    folder, summary = runs.folders["base"], runs.summaries["base"]
    rounds = metrics(folder)
    assert [line["phase"] for line in rounds] == PHASES
    assert (summary["rounds"], summary["clients"], summary["seed"]) == (4, CLIENTS, 0)
    assert len(summary["malicious_clients"]) == MALICIOUS
    sample = summary["detection"]["sample"]
    assert sample["n_poisoned"] == MALICIOUS * BATCH * 2  # an accumulative and a trigger round
    assert sample["n_poisoned"] + sample["n_clean"] == CLIENTS * BATCH * 4

    clean, accumulative, trigger, recovery = (line["accuracy"] for line in rounds)
    accuracy = summary["accuracy"]
    assert (accuracy["before_attack"], accuracy["before_trigger"]) == (clean, accumulative)
    assert (accuracy["after_trigger"], accuracy["final"]) == (trigger, recovery)
    assert summary["accumulation_loss"] == pytest.approx(clean - accumulative)
    assert summary["trigger_drop"] == pytest.approx(accumulative - trigger)

    image, label, npy_header, keys = 8 * 8, 8, 128, len("images") + len("labels")
    assert summary["bytes_received"] == 4 * CLIENTS * (BATCH * (image + label) + 2 * npy_header + keys)
    wall = summary["wall_s"]
    assert wall.pop("local_training") is None  # that is for mode=update
    assert all(seconds is not None and seconds >= 0 for seconds in wall.values())
    assert wall["attack"] > 0 and wall["total"] > wall["startup"] > 0


def test_verdicts_agree_with_the_summary_and_the_rounds(runs: Any, metrics: Metrics) -> None:
    folder, summary = runs.folders["base"], runs.summaries["base"]
    table = pd.read_parquet(folder / "verdicts.parquet")
    assert len(table) == CLIENTS * BATCH * 4
    assert not table.duplicated(["round", "client", "index"]).any()
    poisoned = table["client"].isin(summary["malicious_clients"]) & table["round"].isin([1, 2])
    scores = table["before"].to_numpy()
    pairs = [(p > c) + 0.5 * (p == c) for p in scores[poisoned] for c in scores[~poisoned]]
    assert summary["detection"]["sample"]["auroc"] == pytest.approx(np.mean(pairs))
    assert set(summary["detection"]["baselines"]) >= {
        "current_loss",
        "confidence",
        "pixel_distance",
        "lid",
        "mahalanobis",
    }
    for name, quality in summary["detection"]["baselines"].items():
        values = table[name].to_numpy()
        pairs = [(p > c) + 0.5 * (p == c) for p in values[poisoned] for c in values[~poisoned]]
        assert quality["auroc"] == pytest.approx(np.mean(pairs))
    assert summary["defense"]["corrected_share"] == pytest.approx((table["action"] == "corrected").mean())
    assert summary["defense"]["corrected_share"] > 0
    assert summary["defense"]["mean_steps"] == pytest.approx(table["steps"].mean())
    for round, line in enumerate(metrics(folder)):
        mine = table[table["round"] == round]
        assert line["samples"] == len(mine) == CLIENTS * BATCH
        assert line["discrepancy"]["mean"] == pytest.approx(mine["before"].mean())
        above = mine.groupby("client")["before"].transform("mean") > line["threshold"]  # dsc judges messages
        assert (above == (mine["action"] != "accepted")).all()


def test_an_update_run_leaves_the_same_files(runs: Any, metrics: Metrics) -> None:
    folder, summary = runs.folders["update"], runs.summaries["update"]
    table = pd.read_parquet(folder / "verdicts.parquet")
    assert len(table) == CLIENTS * 4  # a verdict a client and round
    poisoned = table["client"].isin(summary["malicious_clients"]) & table["round"].isin([1, 2])
    assert summary["detection"]["sample"]["n_poisoned"] == poisoned.sum() == MALICIOUS * 2
    flagged = table["action"] != "accepted"
    assert (flagged == (table["before"] > 1)).all()
    assert summary["detection"]["flagged"]["tpr"] == pytest.approx(flagged[poisoned].mean())
    assert summary["detection"]["flagged"]["fpr"] == pytest.approx(flagged[~poisoned].mean())
    assert [line["phase"] for line in metrics(folder)] == PHASES
    assert all(summary["wall_s"][stage] > 0 for stage in ("local_training", "attack", "screening", "step", "total"))
    for name in ("accuracy.png", "discrepancy.png", "truth.json", "metrics.jsonl"):
        assert (folder / name).stat().st_size > 0


def test_figures_exist_and_the_example_images_are_a_members(runs: Any) -> None:
    folder = runs.folders["base"]
    for name in ("accuracy.png", "discrepancy.png", "example_images.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    truth = json.loads((folder / "truth.json").read_text())
    malicious = runs.summaries["base"]["malicious_clients"]
    assert truth == {"malicious_clients": malicious, "poisoned_rounds": [1, 2], "poisoned_samples": BATCH}
    examples = np.load(folder / "example_images.npz")
    moved = np.abs(examples["clean"].astype(int) - examples["poisoned"])
    radius = runs.configs["base"].attack.params.radius
    assert 0 < moved.max() <= radius * 255
    assert not (runs.folders["attack none"] / "example_images.png").exists()


def test_without_an_attack_detection_is_undefined(runs: Any) -> None:
    for name in ("attack none", "fraction zero"):
        summary = runs.summaries[name]
        assert summary["malicious_clients"] == []
        assert summary["accumulation_loss"] is None and summary["trigger_drop"] is None
        assert summary["detection"]["sample"]["n_poisoned"] == 0
        assert summary["detection"]["sample"]["auroc"] is None and summary["detection"]["client"]["auroc"] is None


# -- other attacks -----------------------------------------------------------------------------------------------


def test_trigger_only_is_honest_until_the_trigger(runs: Any, metrics: Metrics) -> None:
    alone, honest = metrics(runs.folders["trigger only"]), metrics(runs.folders["attack none"])
    assert alone[:2] == honest[:2] and alone[2] != honest[2]
    assert [line["phase"] for line in alone] == PHASES
    assert runs.summaries["trigger only"]["detection"]["sample"]["n_poisoned"] == MALICIOUS * BATCH


def test_a_backdoor_is_scored_by_sample_and_by_its_success(runs: Any, metrics: Metrics) -> None:
    folder, summary = runs.folders["backdoor"], runs.summaries["backdoor"]
    stamped = round(0.5 * BATCH)
    assert summary["detection"]["sample"]["n_poisoned"] == MALICIOUS * stamped * 2
    table = pd.read_parquet(folder / "verdicts.parquet")
    poisoned = table["client"].isin(summary["malicious_clients"]) & table["round"].isin([1, 2])
    poisoned &= table["index"] < stamped
    assert (table["label"][poisoned] == 3).all()
    assert (table["label"][~poisoned] != 3).any()
    scores = table["before"].to_numpy()
    pairs = [(p > c) + 0.5 * (p == c) for p in scores[poisoned] for c in scores[~poisoned]]
    assert summary["detection"]["sample"]["auroc"] == pytest.approx(np.mean(pairs))
    rates = [line["attack_success"] for line in metrics(folder)]
    assert all(0 <= rate <= 1 for rate in rates)
    success = summary["attack_success"]
    rates_at_ends = [success[key] for key in ("before_attack", "before_trigger", "after_trigger", "final")]
    assert rates_at_ends == rates and 0 <= success["burn_in"] <= 1
    assert set(runs.summaries["base"]["attack_success"].values()) == {None}


# -- who takes part ---------------------------------------------------------------------------------------------


def test_sampled_clients(runs: Any, metrics: Metrics) -> None:
    table = pd.read_parquet(runs.folders["sampled"] / "verdicts.parquet")
    per_round = table.groupby("round")["client"].agg(lambda clients: tuple(sorted(set(clients))))
    assert all(len(clients) == 2 for clients in per_round) and len(set(per_round)) > 1
    assert all(line["samples"] == 2 * BATCH and line["clients"] == 2 for line in metrics(runs.folders["sampled"]))


def test_a_client_that_raises_is_recorded_and_the_run_goes_on(runs: Any, metrics: Metrics) -> None:
    rounds = metrics(runs.folders["broken"])
    assert [line["clients"] for line in rounds] == [4, 3, 4, 4]
    assert [len(line["rejections"]) for line in rounds] == [0, 1, 0, 0]
    rejection = rounds[1]["rejections"][0]
    assert rejection["client"] == 1 and "my disk is gone" in rejection["reason"]
    assert "\n" not in rejection["reason"]
    sample = runs.summaries["broken"]["detection"]["sample"]
    assert sample["n_clean"] + sample["n_poisoned"] == (4 * CLIENTS - 1) * BATCH


def test_every_round_was_told_in_order(runs: Any) -> None:
    assert runs.rounds_told == [0, 1, 2, 3] * len(runs.folders)


def test_bad_cells_are_refused_before_ray_starts(runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmd.runs.simulation._on_ray", lambda *a, **k: pytest.fail("Ray was started"))
    mapping = runs.configs["base"].model_dump()
    for section, key, value in (
        ("data", "splits", {"burn_in": 5000, "trusted": 1, "attacker": 1, "test": 1}),
        ("model", "name", "nonsense"),
    ):
        with pytest.raises(ConfigError, match=section):
            bad = RunConfig.parse({**mapping, section: {**mapping[section], key: value}})
            simulate([Cell(bad, tmp_path / section)])
        assert not (tmp_path / section).exists()
    simulate([])  # nothing to do: nothing starts
