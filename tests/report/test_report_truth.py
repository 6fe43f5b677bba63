import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedmd.report.truth import Truth

ids = st.integers(0, 12)


@given(
    malicious=st.lists(ids, unique=True),
    rounds=st.lists(ids, unique=True),
    samples=st.lists(st.tuples(ids, ids)),
)
def test_poisoned_is_malicious_client_in_poisoned_round(malicious, rounds, samples):
    truth = Truth(tuple(malicious), tuple(rounds))
    columns = np.array(samples, np.int64).reshape(-1, 2).T
    mask = truth.mask(columns[0], columns[1])
    assert mask.dtype == bool
    assert mask.tolist() == [r in rounds and c in malicious for r, c in samples]


def test_json_roundtrip(tmp_path):
    for truth in (Truth((3, 1), (5, 6, 7)), Truth((), ())):
        truth.write(tmp_path)
        assert Truth.read(tmp_path) == truth
    assert json.loads((tmp_path / "truth.json").read_text()) == {
        "malicious_clients": [],
        "poisoned_rounds": [],
    }


def test_numpy_ids_are_written_as_numbers(tmp_path):
    Truth(tuple(np.array([2, 4])), tuple(np.array([1]))).write(tmp_path)
    assert Truth.read(tmp_path) == Truth((2, 4), (1,))
