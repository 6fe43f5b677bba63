import json

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from fedmd.report.truth import Truth

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
