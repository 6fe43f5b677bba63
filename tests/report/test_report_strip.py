import numpy as np

from fedmd.report.figures.examples import amplified, amplified_rows, read_strip, rejected, write_strip
from fedmd.types import Strip


def images(*values):
    """One 2x2 image of one channel for every value."""
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)


def test_there_and_back(tmp_path):
    assert read_strip(tmp_path) is None
    write_strip(tmp_path, Strip(images(1), images(2), images(3)))
    strip = read_strip(tmp_path)
    assert (strip.clean[0, 0, 0, 0], strip.poisoned[0, 0, 0, 0], strip.corrected[0, 0, 0, 0]) == (1, 2, 3)
    assert strip.clean.dtype == np.uint8


def test_amplified_differences_are_centred_and_clipped():
    result = amplified(images(10, 14, 8, 255, 0), images(10, 10, 10, 0, 255))
    assert result[:, 0, 0, 0].tolist() == [128, 148, 118, 255, 0]


def test_a_rejected_sample_has_no_second_difference():
    strip = Strip(images(50, 50, 0), images(60, 60, 0), images(0, 55, 0))
    assert rejected(strip).tolist() == [True, False, False]  # the last was sent black
    attack, defence = amplified_rows(strip)
    assert attack[:, 0, 0, 0].tolist() == [178, 178, 128]
    assert defence[:, 0, 0, 0].tolist() == [128, 103, 128]
