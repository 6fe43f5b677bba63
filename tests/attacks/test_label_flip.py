"""Mirrored labels, against a loop and against what mirroring must satisfy."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.attacks.catalogue.label_flip import flip_labels


def test_by_hand() -> None:
    labels = np.array([0, 1, 5, 9])
    assert flip_labels(labels, 10).tolist() == [9, 8, 4, 0]
    assert labels.tolist() == [0, 1, 5, 9]
    assert flip_labels(np.array([0, 1, 2]), 3).tolist() == [2, 1, 0]  # the middle class of an odd number stays


@settings(deadline=None, derandomize=True)
@given(classes=st.integers(1, 50), data=st.data())
def test_flipping_is_a_permutation_of_the_classes_and_its_own_inverse(classes: int, data: st.DataObject) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, classes - 1))), np.int64)
    flipped = flip_labels(labels, classes)
    assert flipped.dtype == np.int64
    assert flipped.tolist() == [list(reversed(range(classes)))[label] for label in labels]
    assert np.array_equal(flip_labels(flipped, classes), labels)
