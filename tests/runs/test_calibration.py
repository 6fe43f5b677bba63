"""From a clean run to a file, and from the file to a server that takes it for its own setting only."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedmd.cli.main import main
from fedmd.config import ConfigError, RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.rounds.stream import StreamServer
from fedmd.runs.calibration import calibrate
from fedmd.training.setup import set_up

Make = Callable[..., RunConfig]
SETTING = {"defense.name": "drop", "threshold.fpr": 0.2, "model": {"name": "cnn", "width": 2}}


def server_of(config: RunConfig) -> StreamServer:
    return StreamServer(set_up(config))


def calibrated(config: RunConfig, file: Path, make: Make, **changes: object) -> RunConfig:
    settings = {**SETTING, "threshold": {"name": "calibrated", "path": str(file)}, **changes}
    return make({key: value for key, value in settings.items() if key != "threshold.fpr"})


@pytest.mark.parametrize("stopping", ["per_sample", "per_client", "batch_mean"])
def test_thresholds_are_limits_of_the_scores_of_an_undefended_run(
    make_config: Make, tmp_path: Path, stopping: str
) -> None:
    config = make_config({**SETTING, "defense.stopping": stopping, "threshold.fpr": 0.5})
    file = tmp_path / "thresholds.json"
    (found,) = calibrate(config, file, confidence=0.8, window=None)

    plain = server_of(make_config({**SETTING, "defense.name": "none"}))
    streams, scores = load_federated_data(config).streams, []
    for round in range(config.stream.rounds):
        batches = [streams.batch(client, round) for client in sample_clients(config, round)]
        judged = plain.judge(batches)
        plain.learn(judged)
        before = judged.verdicts.before.reshape(5, 4)  # clients x samples
        scores += {
            "per_sample": before.ravel().tolist(),
            "per_client": before.mean(axis=1).tolist(),
            "batch_mean": [before.mean()],
        }[stopping]
    assert found.n == len(scores)
    assert np.isclose(scores, found.tolerance).any()
    assert np.mean(np.array(scores) > found.tolerance + 1e-9) < 0.5
    assert json.loads(file.read_text())["thresholds"][0]["tolerance"] == found.tolerance


def test_the_server_uses_each_steps_threshold_and_then_the_last(make_config: Make, tmp_path: Path) -> None:
    file = tmp_path / "thresholds.json"
    config = make_config(SETTING)
    found = calibrate(config, file, confidence=0.9, window=0)
    assert len(found) == 6
    threshold = server_of(calibrated(config, file, make_config)).pipeline.threshold
    never = lambda: pytest.fail("the trusted set is not asked")  # noqa: E731
    assert [threshold(step, never) for step in range(6)] == [limit.tolerance for limit in found]
    assert threshold(1000, never) == found[-1].tolerance


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"defense.detector": "historical_loss"}, "defense.detector"),
        ({"defense": {"name": "drop", "detector": "lid", "detector_params": {"neighbours": 5}}}, "defense.detector"),
        ({"defense.stopping": "per_client"}, "defense.stopping"),
        ({"history": {"name": "lag", "lag": 3}}, "history"),
        ({"training.online": {"lr": 0.5, "momentum": 0.9}}, "training.online"),
        ({"model": {"name": "cnn", "width": 3}}, "model"),
        ({"seed": 1}, "burn-in models"),
    ],
)
def test_another_setting_is_refused_in_one_sentence(
    make_config: Make, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    file = tmp_path / "thresholds.json"
    config = make_config(SETTING)
    calibrate(config, file, confidence=0.9, window=None)
    with pytest.raises(ConfigError, match=rf"^threshold\.path: .* was calibrated for {named}=.*; run fedmd calibrate"):
        server_of(calibrated(config, file, make_config, **change))


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "thresholds": [], "valid_for": {}}', '{"format": 2}'])
def test_files_that_are_none(make_config: Make, tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=r"^threshold\.path: .* is no file of fedmd calibrate"):
        server_of(calibrated(make_config(SETTING), tmp_path / "x.json", make_config))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMD_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "thresholds.json"
    tiny = ["experiment=smoke", "training.burn_in.epochs=1", "stream.clean_rounds=10"]
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", str(file), "--confidence", "0.9", *tiny])
    assert ended.value.code == 0
    assert f"threshold=calibrated threshold.path={file}" in capsys.readouterr().out
    for wrong, sentence in (
        ([*tiny], "the first argument is the file to write"),
        ([str(file), *tiny, "--confidence", "2"], "--confidence: must be between 0 and 1"),
        ([str(file), *tiny, "threshold.fpr=0.001"], "are needed for each threshold"),
        ([str(file), *tiny, "threshold.fpr=1"], "threshold.fpr: must be between 0 and 1 for a calibration"),
        ([str(file), *tiny, "threshold=fixed"], "threshold.name: fedmd calibrate needs quantile or calibrated"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["calibrate", *wrong])
        assert ended.value.code == 2
        assert sentence in capsys.readouterr().err
