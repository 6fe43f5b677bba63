"""Batches a hostile or broken client may send: each is refused with a reason, and its neighbours are kept."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.flower.wire.samples import ExpectedBatch
from tests.flower.wire.examples import ROUND, batch, honest, read_round, reply

EXPECTED = ExpectedBatch(shape=(1, 4, 4), classes=10, max_samples=3)
IMAGES = np.arange(48, dtype=np.uint8).reshape(3, 1, 4, 4)
LABELS = np.array([9, 0, 4])


def raw(data: bytes, *, stype: str = "numpy.ndarray") -> Array:
    """An array that declares to be a perfect batch of images, whatever its bytes are."""
    return Array(dtype="uint8", shape=(3, 1, 4, 4), stype=stype, data=data)


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def npy_header(text: str) -> Array:
    """A .npy file, version 1, whose header is `text` and whose body is 48 zeros."""
    encoded = text.encode("latin1")
    return raw(b"\x93NUMPY\x01\x00" + len(encoded).to_bytes(2, "little") + encoded + bytes(48))


def shaped(shape: str, descr: str = "'|u1'") -> Array:
    return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n")


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES)
    return buffer.getvalue()


def refused(record: Any) -> str:
    """Why client 0's `record` was refused; client 1's batch must have survived."""
    content = honest(1)
    content["batch.0"] = record
    batches, rejections = read_round(reply(content), ROUND, [0, 1], EXPECTED)
    assert [kept.client for kept in batches] == [1]
    assert np.array_equal(batches[0].images, batch(1).images)
    assert [rejection.client for rejection in rejections] == [0]
    return rejections[0].reason


UNREADABLE = "cannot be read"


@pytest.mark.parametrize(
    ("images", "labels", "reason"),
    [
        (IMAGES.astype(np.float32) / 255, LABELS, "images must be uint8, not float32"),
        (np.full((3, 1, 4, 4), np.nan, np.float32), LABELS, "images must be uint8, not float32"),
        (IMAGES.astype(np.int8), LABELS, "images must be uint8, not int8"),
        (IMAGES.astype(bool), LABELS, "images must be uint8, not bool"),
        (IMAGES, LABELS.astype(np.int32), "labels must be int64, not int32"),
        (IMAGES, LABELS.astype(">i8"), "labels must be int64, not >i8"),
        (IMAGES, LABELS.astype(float), "labels must be int64, not float64"),
        (IMAGES, LABELS.astype(bool), "labels must be int64, not bool"),
        (IMAGES[:, 0], LABELS, "shape [n, 1, 4, 4], not [3, 4, 4]"),
        (IMAGES[:, :, :3], LABELS, "shape [n, 1, 4, 4], not [3, 1, 3, 4]"),
        (IMAGES.repeat(3, axis=1), LABELS, "shape [n, 1, 4, 4], not [3, 3, 4, 4]"),
        (IMAGES.reshape(-1), LABELS, "shape [n, 1, 4, 4], not [48]"),
        (np.ones((), np.uint8), LABELS, "shape [n, 1, 4, 4], not []"),
        (IMAGES, LABELS[:2], "labels must have shape [3], not [2]"),
        (IMAGES, LABELS[:, None], "labels must have shape [3], not [3, 1]"),
        (IMAGES, LABELS * 0 - 1, "labels must be between 0 and 9"),
        (IMAGES, LABELS * 0 + 10, "labels must be between 0 and 9"),
        (IMAGES, LABELS * 0 + np.iinfo(np.int64).min, "labels must be between 0 and 9"),
        (IMAGES[:0], LABELS[:0], "1 to 3 samples, not 0"),
        (np.concatenate([IMAGES, IMAGES]), np.concatenate([LABELS, LABELS]), "1 to 3 samples, not 6"),
        # what is declared is not what counts
        (raw(npy(IMAGES[:, :, :2])), LABELS, "but it is uint8 [3, 1, 2, 4]"),
        (raw(npy(IMAGES.astype(np.float64))), LABELS, "but it is float64 [3, 1, 4, 4]"),
        # what is no array
        (raw(npy(IMAGES.astype(object), allow_pickle=True)), LABELS, UNREADABLE),
        (IMAGES, raw(npy(LABELS.astype(object), allow_pickle=True)), UNREADABLE),
        (raw(pickle.dumps(IMAGES)), LABELS, UNREADABLE),
        (raw(npy(IMAGES)[:-1]), LABELS, UNREADABLE),
        (raw(npy(IMAGES)[:20]), LABELS, UNREADABLE),
        (raw(b""), LABELS, UNREADABLE),
        (raw(b"garbage"), LABELS, UNREADABLE),
        (raw(npy(IMAGES), stype="torch.pickle"), LABELS, UNREADABLE),
        (raw(archive()), LABELS, UNREADABLE),
        (raw(b"PK\x03\x04 no zip"), LABELS, UNREADABLE),
        (shaped("(99999999999999999999,)"), LABELS, UNREADABLE),
        (shaped("(1000000000000, 1, 4, 4)"), LABELS, UNREADABLE),
        (shaped("(-3, -1, 4, 4)"), LABELS, UNREADABLE),
        (shaped("(3,)", descr="[('a',)]"), LABELS, UNREADABLE),
        (shaped("(3,)", descr="[()]"), LABELS, UNREADABLE),
        (npy_header("{'descr': '|u1', 'shape': (3,"), LABELS, UNREADABLE),
        (npy_header("(" * 300), LABELS, UNREADABLE),
        (npy_header("__import__('os').abort()"), LABELS, UNREADABLE),
    ],
)
def test_a_bad_batch_is_refused_and_its_neighbour_kept(images: Any, labels: Any, reason: str) -> None:
    arrays = {"images": images, "labels": labels}
    record = ArrayRecord({name: a if isinstance(a, Array) else Array(a) for name, a in arrays.items()})
    assert reason in refused(record)


def test_these_arrays_would_have_been_accepted() -> None:
    """The table above changes one thing at a time in a batch that is fine."""
    for images in (Array(IMAGES), raw(npy(IMAGES)), raw(npy(np.asfortranarray(IMAGES))), shaped("(3, 1, 4, 4)")):
        content = RecordDict({"fedmd": honest()["fedmd"]})
        content["batch.0"] = ArrayRecord({"images": images, "labels": Array(LABELS)})
        batches, rejections = read_round(reply(content), ROUND, [0], EXPECTED)
        assert (len(batches), rejections) == (1, [])


@pytest.mark.parametrize(
    "record",
    [
        ArrayRecord({"images": Array(IMAGES)}),
        ArrayRecord({"images": Array(IMAGES), "labels": Array(LABELS), "poisoned": Array(LABELS)}),
        ArrayRecord(),
        ConfigRecord({"images": IMAGES.tobytes(), "labels": LABELS.tolist()}),
        MetricRecord({"images": 1.0}),
    ],
)
def test_a_batch_of_another_kind(record: Any) -> None:
    assert refused(record) == "there is no batch with images and labels"


def test_a_missing_client() -> None:
    batches, rejections = read_round(reply(honest(1)), ROUND, [0, 1], EXPECTED)
    assert [kept.client for kept in batches] == [1]
    assert [(r.client, r.reason) for r in rejections] == [(0, "there is no batch with images and labels")]


# -- anything at all --------------------------------------------------------------------------------------------

DTYPES = st.sampled_from(["u1", "i1", "i8", ">i8", "f4", "f8", "?", "c8", "U3", "S2", "M8[s]", "V4"])
SHAPES = st.one_of(st.lists(st.integers(0, 5), max_size=5).map(tuple), st.sampled_from([(3, 1, 4, 4), (3,), (2,)]))
ARRAYS = st.builds(lambda dtype, shape: np.zeros(shape, np.dtype(dtype)), DTYPES, SHAPES)
FILES = [npy(IMAGES), npy(LABELS), archive()]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with a few bytes changed, perhaps cut off."""
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, min(len(data) - 1, 140)))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) if draw(st.booleans()) else bytes(data)


PIECES = st.builds(
    raw,
    st.one_of(st.binary(max_size=200), damaged(), ARRAYS.map(npy)),
    stype=st.sampled_from(["numpy.ndarray"] * 9 + ["", "pickle"]),
)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.one_of(INTEGERS, st.floats(), st.booleans(), st.text(max_size=5), st.binary(max_size=5))
VALUES = st.one_of(st.just(ROUND), st.just(1), SCALARS, st.lists(INTEGERS, max_size=3))
CONFIGS = st.dictionaries(st.sampled_from(["protocol", "round", "clients"]), VALUES).map(ConfigRecord)
PAIRS = st.builds(lambda x, y: ArrayRecord({"images": x, "labels": y}), PIECES, PIECES)
SETS = st.dictionaries(st.sampled_from(["images", "labels", "more"]), PIECES, max_size=3).map(ArrayRecord)
RECORDS = st.one_of(PAIRS, PAIRS, PAIRS, SETS, CONFIGS, st.just(MetricRecord({"x": 1.0})))
KEYS = st.sampled_from(["batch.0", "batch.1", "batch.2", "model", "é", ""])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(header=st.one_of(st.none(), st.none(), CONFIGS), records=st.dictionaries(KEYS, RECORDS, max_size=3))
def test_nothing_breaks_the_server_and_only_valid_batches_come_through(
    header: ConfigRecord | None, records: dict[str, Any]
) -> None:
    content = honest()
    content.update({"fedmd": header, **records} if header is not None else records)
    batches, rejections = read_round(reply(content), ROUND, [0, 1], EXPECTED)
    for kept in batches:
        assert kept.images.dtype == np.uint8 and kept.labels.dtype == np.int64
        assert kept.images.shape == (len(kept.labels), 1, 4, 4) and 1 <= len(kept.labels) <= 3
        assert all(0 <= label < 10 for label in kept.labels.tolist())
    assert {kept.client for kept in batches} | {refusal.client for refusal in rejections} == {0, 1}
    assert all(refusal.reason and len(refusal.reason) < 400 for refusal in rejections)
