"""Where a node stands in its stream: each sample is sent once, and a repeated question gets the repeated answer."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.config import ConfigError
from fedmd.data.node_stream import Samples, next_samples

LENGTH = 40


def read(start: int, count: int) -> Samples | None:
    """A stream of 40 samples whose labels are their numbers."""
    labels = np.arange(start, min(start + count, LENGTH))
    return (np.zeros((len(labels), 1, 1, 1), np.uint8), labels) if len(labels) else None


def numbers(samples: Samples | None) -> list[int]:
    return [] if samples is None else samples[1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(1, 9)), max_size=12))
def test_against_a_list_that_is_used_up(questions: list[tuple[str, int, int]]) -> None:
    left, run_now = list(range(LENGTH)), ""
    answered: dict[int, list[int]] = {}
    with TemporaryDirectory() as folder:
        for run, round, count in questions:
            if run != run_now:  # another run: nothing of the old one is repeated
                run_now, answered = run, {}
            if round not in answered:
                answered[round], left = left[:count], left[count:]
            assert numbers(next_samples(Path(folder, "p.json"), run, round, count, read)) == answered[round]


def test_what_could_not_be_read_was_not_sent(tmp_path: Path) -> None:
    def broken(start: int, count: int) -> Samples | None:
        raise ConfigError("stream: the disk is gone")

    file = tmp_path / "p.json"
    assert numbers(next_samples(file, "r", 0, 3, read)) == [0, 1, 2]
    with pytest.raises(ConfigError, match="the disk is gone"):
        next_samples(file, "r", 1, 3, broken)
    assert numbers(next_samples(file, "r", 1, 3, read)) == [3, 4, 5]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"run": "r"}', '{"run": "r", "next": "x", "sent": {}}'])
def test_a_damaged_file_stops_the_node_instead_of_sending_twice(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(ConfigError, match=r"position: .* cannot be read and written"):
        next_samples(tmp_path / "p.json", "r", 0, 1, read)


def test_memory_of_old_rounds_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    for round in range(200):
        next_samples(file, "r", round, 1, lambda start, count: (np.zeros((1, 1, 1, 1), np.uint8), np.array([start])))
    assert file.stat().st_size < 3000


def test_a_round_that_is_not_remembered_is_neither_repeated_nor_replaced_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    for round in range(5):
        assert numbers(next_samples(file, "r", round, 2, read, remembered=3)) == [2 * round, 2 * round + 1]
    assert numbers(next_samples(file, "r", 2, 2, read, remembered=3)) == [4, 5]
    before = file.read_bytes()
    with pytest.raises(ConfigError, match="round 1 is not remembered"):
        next_samples(file, "r", 1, 2, read, remembered=3)
    assert file.read_bytes() == before
