import pytest

from fedmd.config import ConfigError
from fedmd.report.monitoring.tensorboard import EventWriter, round_scalars
from fedmd.runs import simulation

NAN = float("nan")


def test_scalars_of_a_round(round_report):
    scalars = round_scalars(round_report(3, before=[0.1, 0.3], attack_success=0.25))
    assert scalars == {
        "accuracy": 0.5,
        "attack_success": 0.25,
        "loss": 1.0,
        "discrepancy/mean": pytest.approx(0.2),
        "discrepancy/threshold": 0.25,
        "share/corrected": 0.0,
        "share/rejected": 0.0,
    }


def test_another_detector_keeps_its_threshold_to_itself(round_report):
    scalars = round_scalars(round_report(3, before=[0.1, 0.3], discrepancy=[4.0, 6.0]))
    assert {name: value for name, value in scalars.items() if "/" in name and "share" not in name} == {
        "discrepancy/mean": pytest.approx(5.0),
        "detector/mean": pytest.approx(0.2),
        "detector/threshold": 0.25,
    }


def test_what_is_undefined_is_left_out(round_report):
    undefined = round_report(0, accuracy=None, loss=None, before=[NAN, NAN], threshold=None)
    assert set(round_scalars(undefined)) == {"share/corrected", "share/rejected"}


def events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    reader = accumulator.EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return [(event.step, round(event.value, 3)) for event in reader.Scalars("accuracy")]


def test_events_are_on_disk_while_the_run_goes_on(tmp_path, round_report):
    pytest.importorskip("tensorboard")
    with EventWriter(tmp_path) as writer:
        writer.record(round_report(0, accuracy=0.1))
        assert events(tmp_path) == [(0, 0.1)]
        writer.record(round_report(1, accuracy=0.2))
    assert events(tmp_path) == [(0, 0.1), (1, 0.2)]


def test_starting_again_replaces_what_comes_after(tmp_path, round_report, monkeypatch):
    pytest.importorskip("tensorboard")
    for start, accuracies in ((0, [0.1, 0.2, 0.3]), (1, [0.7])):
        monkeypatch.setattr("time.time", lambda start=start: 1e9 + start)  # files sort by their second
        with EventWriter(tmp_path) as writer:
            for number, accuracy in enumerate(accuracies, start=start):
                writer.record(round_report(number, accuracy=accuracy))
    assert events(tmp_path) == [(0, 0.1), (1, 0.7)]


def test_a_missing_package_is_one_sentence_before_anything_starts(tmp_path, make_config, monkeypatch):
    monkeypatch.setattr(simulation, "tensorboard_is_installed", lambda: False)
    cell = simulation.Cell(make_config({"runtime.tensorboard": True}), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^runtime.tensorboard: needs the package tensorboard; [^.]*\.$"):
        simulation.simulate([cell])
    assert not cell.folder.exists()
