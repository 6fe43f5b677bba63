"""A run's folder: whether there is a run, whether it has finished, and whether it can go on here."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fedmd.config import ConfigError, RunConfig
from fedmd.rounds.checkpoint import CHECKPOINT, Checkpoints, discard_checkpoint, tidy
from fedmd.rounds.folder import CONFIG, has_finished, note_config, noted_config, sole_server
from fedmd.training.burn_in import BurnIn

Make = Callable[..., RunConfig]
BURN_IN = BurnIn(({"w": torch.zeros(2)}, {"w": torch.ones(2)}))
SAVED = {"x": torch.arange(3), "seconds": 1.5}


def test_what_was_saved_is_loaded(make_config: Make, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, make_config(), BURN_IN)
    assert checkpoints.load() is None
    checkpoints.save(0, SAVED)
    checkpoints.save(4, {**SAVED, "seconds": 2.5})
    loaded = Checkpoints(tmp_path, make_config(), BURN_IN).load()
    assert loaded is not None and loaded[0] == 4 and loaded[1]["seconds"] == 2.5
    assert torch.equal(loaded[1]["x"], SAVED["x"])  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    discard_checkpoint(tmp_path)
    assert checkpoints.load() is None


def test_that_of_another_run_in_the_folder_does_not_count(make_config: Make, tmp_path: Path) -> None:
    Checkpoints(tmp_path, make_config({"seed": 1}), BURN_IN).save(2, SAVED)
    assert Checkpoints(tmp_path, make_config(), BURN_IN).load() is None


@pytest.mark.parametrize("epoch", [0, 1])
def test_other_models_after_burn_in_are_refused(make_config: Make, tmp_path: Path, epoch: int) -> None:
    """Another machine's burn-in has other last digits; the run would silently become another one."""
    config = make_config({"history": {"name": "snapshot", "epoch": 1}})
    Checkpoints(tmp_path, config, BURN_IN).save(2, SAVED)
    snapshots = list(BURN_IN.snapshots)
    snapshots[epoch] = {"w": snapshots[epoch]["w"] + 1e-7}
    with pytest.raises(ConfigError, match="another burn-in"):
        Checkpoints(tmp_path, config, replace(BURN_IN, snapshots=tuple(snapshots))).load()


def test_another_calibration_is_refused(make_config: Make, tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    config = make_config({"threshold": {"name": "calibrated", "path": str(file)}})
    file.write_text("{}")
    Checkpoints(tmp_path, config, BURN_IN).save(2, SAVED)
    file.write_text("{ }")
    with pytest.raises(ConfigError, match=r"another threshold\.path"):
        Checkpoints(tmp_path, config, BURN_IN).load()


@pytest.mark.parametrize("content", [b"", b"half of it", None])
def test_a_damaged_one_is_refused(make_config: Make, tmp_path: Path, content: bytes | None) -> None:
    checkpoints = Checkpoints(tmp_path, make_config(), BURN_IN)
    checkpoints.save(2, SAVED)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    with pytest.raises(ConfigError, match="not a complete checkpoint"):
        checkpoints.load()


def test_the_configuration_comes_back(make_config: Make, tmp_path: Path) -> None:
    note_config(tmp_path, make_config({"seed": 5}))
    assert noted_config(tmp_path) == make_config({"seed": 5})
    with pytest.raises(ConfigError, match=r"no folder of a run"):
        noted_config(tmp_path / "nothing")
    mapping = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps({**mapping, "colour": "red"}))
    with pytest.raises(ConfigError, match=r"config\.json is of another version .*colour: unknown key"):
        noted_config(tmp_path)


def test_a_summary_counts_for_its_own_configuration(make_config: Make, tmp_path: Path) -> None:
    assert not has_finished(tmp_path)
    (tmp_path / "summary.json").write_text(
        json.dumps({"config": json.loads(make_config().to_json()), "detection": {}, "wall_s": {}})
    )
    assert not has_finished(tmp_path)  # somebody else's file: there are no rounds beside it
    (tmp_path / "metrics.jsonl").write_text("")
    assert has_finished(tmp_path)  # of a version that did not note configurations
    note_config(tmp_path, make_config())
    assert has_finished(tmp_path)
    note_config(tmp_path, make_config({"seed": 1}))  # a new run in the folder that has not got far
    assert not has_finished(tmp_path)


def test_one_server_a_folder(tmp_path: Path) -> None:
    with sole_server(tmp_path / "new"):
        with pytest.raises(ConfigError, match="another process"), sole_server(tmp_path / "new"):
            pass
        with sole_server(tmp_path / "other"):
            pass
    with sole_server(tmp_path / "new"):
        pass


def test_files_that_a_killed_server_had_half_written_are_gone(tmp_path: Path) -> None:
    names = ["checkpoint.safetensors", "models.safetensors", "config.json", "truth.json", "summary.json", "report.html"]
    half = [f".{name}.12.ab.tmp" for name in names]
    for name in [*half, ".export.csv.12.ab.tmp", "config.json"]:  # an operator's export is none of the server's
        (tmp_path / name).write_text("half")
    with sole_server(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".export.csv.12.ab.tmp", "config.json"}


def test_what_a_finished_run_left_is_tidied(tmp_path: Path) -> None:
    (tmp_path / "verdicts").mkdir()
    left = ("checkpoint.safetensors", "verdicts/part-00000000.arrow", ".report.html.12.ab.tmp")
    for names in (left, left[-1:]):
        for name in ("summary.json", *names):
            (tmp_path / name).write_text("{}")
        tidy(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"summary.json", ".lock"}
    tidy(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
