"""The files of a run's folder: the record, the verdicts, who was malicious, the example images."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmd.report.files import Truth, read_example_images, read_metrics, write_example_images
from fedmd.report.html.example_images import amplified, amplified_rows, rejected
from fedmd.report.recorder import RecordPosition, RunRecorder
from fedmd.report.verdicts import discard_parts, read_verdicts
from fedmd.types import PHASES, Action, ExampleImages

NAN, INF = float("nan"), float("inf")
A, C, R = Action.ACCEPTED, Action.CORRECTED, Action.REJECTED


def refuse_constant(name):
    raise AssertionError(f"{name} is not JSON")


def test_one_line_a_round_with_known_numbers(tmp_path, round_report, record):
    report = round_report(
        3,
        "accumulative",
        accuracy=0.75,
        before=[0.1, NAN, 0.3, 0.8],
        clients=[4, 4, 7, 7],
        actions=[A, C, C, R],
        steps=[0, 3, 5, 0],
        wall_s={"attack": 1.5, "step": 0.25},
        attack_success=0.125,
    )
    (row,) = read_metrics(record(tmp_path, report))
    assert list(row)[-1] == "wall_s"
    discrepancy = row.pop("discrepancy")
    assert discrepancy["mean"] == pytest.approx(0.4)  # of 0.1, 0.3, 0.8
    assert discrepancy["q50"] == pytest.approx(0.3)
    assert discrepancy["q95"] == pytest.approx(0.75)  # 90 % of the way from 0.3 to 0.8
    assert row == {
        "round": 3,
        "phase": "accumulative",
        "accuracy": 0.75,
        "attack_success": 0.125,
        "loss": 1.0,
        "threshold": 0.25,
        "threshold_drift": None,
        "samples": 4,
        "clients": 2,
        "corrected_share": 0.5,
        "rejected_share": 0.25,
        "mean_steps": 2.0,
        "rejections": [{"client": 9, "reason": "labels out of range"}],
        "bytes_received": 300,
        "wall_s": {"attack": 1.5, "step": 0.25},
    }


def test_what_is_not_a_number_becomes_null_and_the_json_is_strict(tmp_path, round_report, record):
    unmeasured = round_report(1, accuracy=None, loss=NAN, threshold=None, before=[NAN, NAN])
    diverged = round_report(2, loss=INF, before=[INF, 1.0])
    empty = round_report(3, before=[], loss=np.float32(2.0))
    folder = record(tmp_path, unmeasured, diverged, empty)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    first, second, third = (json.loads(line, parse_constant=refuse_constant) for line in lines)
    assert first["discrepancy"] == {"mean": None, "q50": None, "q95": None}
    assert (first["accuracy"], first["loss"], first["threshold"]) == (None, None, None)
    assert second["loss"] is None and second["discrepancy"]["mean"] is None
    assert (third["samples"], third["clients"], third["loss"]) == (0, 0, 2.0)
    assert (third["corrected_share"], third["mean_steps"]) == (None, None)


def test_two_runs_differ_in_wall_s_only(tmp_path, round_report, record):
    folders = [
        record(tmp_path / str(seconds), *(round_report(r, wall_s={"step": seconds}) for r in (1, 2)))
        for seconds in (0.1, 0.2)
    ]
    texts = [(folder / "metrics.jsonl").read_text().splitlines() for folder in folders]
    first, second = ([line.split(', "wall_s"')[0] for line in lines] for lines in texts)
    assert first == second
    assert read_metrics(folders[0]) != read_metrics(folders[1])


def test_verdicts_come_back_as_they_went_in(tmp_path, round_report, record):
    reports = [
        round_report(1, "clean", threshold=None),
        round_report(2, "trigger", before=[], threshold=0.5),
        round_report(3, "trigger", before=[0.1, NAN], clients=[5, 8], actions=[R, C], steps=[0, 7]),
    ]
    folder = record(tmp_path, *reports)
    frame = read_verdicts(folder)
    names = [
        "round",
        "phase",
        "client",
        "index",
        "label",
        "discrepancy",
        "before",
        "after",
        "threshold",
        "steps",
        "action",
    ]
    assert list(frame) == names
    for name, values in {
        "round": [1, 1, 1, 1, 3, 3],
        "client": [0, 0, 1, 1, 5, 8],
        "index": [0, 1, 0, 1, 0, 1],
        "label": [0, 1, 2, 3, 0, 1],
        "before": [0.1, 0.2, 0.3, 0.4, 0.1, NAN],
        "after": [0.05, 0.1, 0.15, 0.2, 0.05, NAN],
        "threshold": [NAN] * 4 + [0.25] * 2,
        "steps": [0, 0, 0, 0, 0, 7],
    }.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), values)
    assert frame["phase"].tolist() == ["clean"] * 4 + ["trigger"] * 2
    assert frame["action"].tolist() == ["accepted"] * 4 + ["rejected", "corrected"]
    assert tuple(frame["phase"].cat.categories) == PHASES
    assert list(read_verdicts(folder, ["before", "action"])) == ["before", "action"]


def test_one_row_group_a_round_and_dictionary_columns(tmp_path, round_report, record):
    folder = record(tmp_path, *(round_report(r, before=[0.5] * n) for r, n in enumerate((3, 1, 5))))
    file = pq.ParquetFile(folder / "verdicts.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [3, 1, 5]
    for name in ("phase", "action"):
        assert pa.types.is_dictionary(file.schema_arrow.field(name).type)


def test_a_run_that_dies_leaves_valid_files(tmp_path, round_report):
    with pytest.raises(KeyError), RunRecorder(tmp_path) as recorder:
        recorder.record(round_report(1))
        assert len(read_metrics(tmp_path)) == 1  # flushed: others read along
        raise KeyError("boom")
    assert len(read_metrics(tmp_path)) == 1
    assert len(read_verdicts(tmp_path)) == 4


def test_a_run_without_a_round_leaves_valid_files(tmp_path, record):
    folder = record(tmp_path / "new" / "folder")
    assert read_metrics(folder) == []
    assert len(read_verdicts(folder)) == 0


def test_a_malformed_report_changes_neither_file(tmp_path, round_report):
    with RunRecorder(tmp_path) as recorder:
        recorder.record(round_report(1))
        with pytest.raises(ValueError, match=r"round 2.*length"):
            recorder.record(round_report(2, clients=[1, 2, 3]))
    assert [row["round"] for row in read_metrics(tmp_path)] == [1]
    assert set(read_verdicts(tmp_path)["round"]) == {1}


def test_recording_needs_the_with_block(tmp_path, round_report):
    recorder = RunRecorder(tmp_path)
    with pytest.raises(RuntimeError, match="with"):
        recorder.record(round_report(1))
    with recorder:
        pass
    with pytest.raises(RuntimeError, match="with"):
        recorder.record(round_report(1))


def test_recording_again_takes_back_the_finished_mark(tmp_path, round_report, record):
    (tmp_path / "summary.json").write_text("{}")
    record(tmp_path, round_report(1))
    assert not (tmp_path / "summary.json").exists()


# -- a record that goes on ---------------------------------------------------------------------------------------------


def rounds_of(round_report, numbers):
    """Rounds of different sizes, one of them empty."""
    return [round_report(number, "trigger", before=[number / 7] * (number % 3), threshold=None) for number in numbers]


@pytest.mark.parametrize("kept", range(5))
@pytest.mark.parametrize("lost", [0, 2])
def test_going_on_after_a_crash_leaves_the_same_bytes(tmp_path, round_report, record, kept, lost):
    """Whatever came after the place that a checkpoint remembers is forgotten, half-written files included."""
    whole = record(tmp_path / "whole", *rounds_of(round_report, range(4)))
    folder = tmp_path / "killed"
    with pytest.raises(KeyError), RunRecorder(folder) as recorder:
        for report in rounds_of(round_report, range(kept)):
            recorder.record(report)
        place = recorder.flush()
        for report in rounds_of(round_report, range(10, 10 + lost)):
            recorder.record(report)
        raise KeyError("killed")
    assert place.parts == kept
    (folder / "verdicts" / ".part-00000009.arrow.1.tmp").write_text("half a")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"round": 1')
    with RunRecorder(folder, after=place) as recorder:
        assert [row["round"] for row in read_metrics(folder)] == list(range(kept))
        for report in rounds_of(round_report, range(kept, 4)):
            recorder.record(report)
    for name in ("metrics.jsonl", "verdicts.parquet"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_that_goes_on_can_be_read(tmp_path, round_report):
    with RunRecorder(tmp_path) as recorder:
        for report in rounds_of(round_report, (1, 2)):
            recorder.record(report)
        assert read_verdicts(tmp_path)["round"].tolist() == [1, 2, 2]
        assert list(read_verdicts(tmp_path, ["client"])) == ["client"]
        during = read_verdicts(tmp_path)
    discard_parts(tmp_path)
    assert not (tmp_path / "verdicts").exists() and during.equals(read_verdicts(tmp_path))


def test_a_record_that_does_not_go_so_far_is_refused(tmp_path, round_report, record):
    folder = record(tmp_path, *rounds_of(round_report, (1, 2)))
    there = (folder / "metrics.jsonl").stat().st_size
    with pytest.raises(ValueError, match="shorter"), RunRecorder(folder, after=RecordPosition(there + 1, 2)):
        pass
    with (
        pytest.raises(ValueError, match=r"part-00000002\.arrow is missing"),
        RunRecorder(folder, after=RecordPosition(9, 3)),
    ):
        pass


ids = st.integers(0, 12)


@given(
    malicious=st.lists(ids, unique=True),
    rounds=st.lists(ids, unique=True),
    count=st.none() | ids,
    samples=st.lists(st.tuples(ids, ids, ids)),
)
def test_poisoned_is_malicious_client_in_poisoned_round_among_the_first_of_the_batch(malicious, rounds, count, samples):
    truth = Truth(tuple(malicious), tuple(rounds), count)
    columns = np.array(samples, np.int64).reshape(-1, 3).T
    mask = truth.mask(*columns)
    assert mask.dtype == bool
    assert mask.tolist() == [r in rounds and c in malicious and (count is None or i < count) for r, c, i in samples]
    frame = pd.DataFrame(dict(zip(("round", "client", "index"), columns, strict=True)))
    assert truth.of(frame).tolist() == mask.tolist()


def test_json_roundtrip(tmp_path):
    for truth in (Truth((3, 1), (5, 6, 7), 2), Truth((), ())):
        truth.write(tmp_path)
        assert Truth.read(tmp_path) == truth
    assert json.loads((tmp_path / "truth.json").read_text()) == {
        "malicious_clients": [],
        "poisoned_rounds": [],
        "poisoned_samples": None,
    }


def test_older_files_count_whole_batches(tmp_path):
    (tmp_path / "truth.json").write_text('{"malicious_clients": [1], "poisoned_rounds": [2]}')
    assert Truth.read(tmp_path) == Truth((1,), (2,), None)


def test_numpy_ids_are_written_as_numbers(tmp_path):
    Truth(tuple(np.array([2, 4])), tuple(np.array([1]))).write(tmp_path)
    assert Truth.read(tmp_path) == Truth((2, 4), (1,))


def images(*values):
    """One 2x2 image of one channel for every value."""
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)


def test_there_and_back(tmp_path):
    assert read_example_images(tmp_path) is None
    write_example_images(tmp_path, ExampleImages(images(1), images(2), images(3)))
    found = read_example_images(tmp_path)
    for array, value in ((found.clean, 1), (found.poisoned, 2), (found.corrected, 3)):
        assert array.dtype == np.uint8 and array.shape == (1, 1, 2, 2) and (array == value).all()


def test_amplified_differences_are_centred_and_clipped():
    result = amplified(images(10, 14, 8, 255, 0), images(10, 10, 10, 0, 255))
    assert result[:, 0, 0, 0].tolist() == [128, 148, 118, 255, 0]


def test_a_rejected_sample_has_no_second_difference():
    examples = ExampleImages(images(50, 50, 0), images(60, 60, 0), images(0, 55, 0))
    assert rejected(examples).tolist() == [True, False, False]  # the last was sent black
    attack, defence = amplified_rows(examples)
    assert attack[:, 0, 0, 0].tolist() == [178, 178, 128]
    assert defence[:, 0, 0, 0].tolist() == [128, 103, 128]
