"""Arrays from strangers: read in place and once; nothing that is only declared is allocated."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fedmd.flower.strategies.replies import read_state, slots_of
from fedmd.flower.wire.arrays import is_finite, read_array, read_tensors
from fedmd.flower.wire.samples import ExpectedBatch, batches_reply
from fedmd.flower.wire.updates import ExpectedUpdate, read_updates
from tests.flower.wire.examples import read_round
from tests.hostile.mutations import npy
from tests.hostile.wire import ROUND, answer, batch, update

EXPECTED = ExpectedBatch((1, 8, 8), 10, 4)
WEIGHTS = ExpectedUpdate({"w": ((2, 3), np.dtype(np.float32))}, 50)


def raw(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (2, 3)) -> Array:
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)


def npy_of(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


# -- nothing that is only declared is allocated ---------------------------------------------------------------------

HUGE = "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"


@pytest.mark.parametrize("shape", ["(2000000000,)", "(2000000, 1, 8, 8)", "(4000000000, 0)", "(99999999999999999999,)"])
@pytest.mark.parametrize("descr", ["|u1", "<f4", "<U4096"])
def test_a_declared_size_is_not_allocated(shape: str, descr: str) -> None:
    array = raw(npy_of(HUGE.format(descr, shape), bytes(100)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="cannot be read"):
            read_array("images", array)
        record = ArrayRecord({"images": array, "labels": array})
        content = batches_reply(ROUND, [batch(1)])
        content["batch.0"] = record
        assert len(read_round(answer(content), ROUND, [0, 1], EXPECTED)[0]) == 1
        spoilt = update(w=np.zeros((2, 3), np.float32))
        spoilt["update.0"] = ArrayRecord({"w": array})
        assert read_updates(answer(spoilt), ROUND, [0], WEIGHTS)[0] == []
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_an_honest_array_is_read_without_a_copy() -> None:
    own = Array(np.arange(6, dtype=np.float32).reshape(2, 3))
    read = read_array("w", own)
    assert np.shares_memory(read, np.frombuffer(own.data, np.uint8)) and not read.flags.writeable
    assert read.tolist() == [[0, 1, 2], [3, 4, 5]]
    odd = raw(
        npy_of("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}", np.arange(6, dtype=np.float32).tobytes())
    )
    read = read_array("w", odd)
    assert read.flags.aligned and read.tolist() == [[0, 2, 4], [1, 3, 5]]  # as NumPy reads it
    assert read.tolist() == odd.numpy().tolist()


@pytest.mark.parametrize("extra", [b"\x00", b"more"])
def test_bytes_behind_the_data_are_refused(extra: bytes) -> None:
    with pytest.raises(ValueError, match="what its header declares is not the"):
        read_array("w", raw(npy(np.zeros((2, 3), np.float32)) + extra))


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float64", (2, 3)), ("float32", (3, 2)), ("float32", ()), ("x" * 9999, (2, 3))]
)
def test_declared_and_real_must_agree(dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="w is declared as") as caught:
        read_array("w", raw(npy(np.zeros((2, 3), np.float32)), dtype, shape))
    assert len(str(caught.value)) < 300


# -- finite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_anywhere_is_found(dtype: Any, bad: float) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 2, 33, 1000):
        for at in {0, size // 2, size - 1}:
            values = rng.standard_normal(size).astype(dtype)
            assert is_finite(values)
            values[at] = bad
            assert not is_finite(values)
            values[-at - 1] = -bad  # a sum would be NaN, or the two might cancel
            assert not is_finite(values) or at == size - at - 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_large_and_small_values_are_finite(dtype: Any) -> None:
    """Squares that overflow or vanish say nothing about the values."""
    info = np.finfo(dtype)
    assert is_finite(np.array([info.max, info.min, info.tiny, info.smallest_subnormal, 0], dtype))
    assert is_finite(np.full((300, 3), info.max, dtype).T)
    assert is_finite(np.zeros((0, 3), dtype)) and is_finite(np.array(info.max, dtype))


def test_a_valid_update_is_used_where_it_lies() -> None:
    content = update(w=np.ones((2, 3), np.float32))
    message = answer(content)
    (kept,), _ = read_updates(message, ROUND, [0], WEIGHTS)
    sent = np.frombuffer(message.content.array_records["update.0"]["w"].data, np.uint8)
    assert np.shares_memory(kept.tensors()["w"].numpy(), sent)
    assert read_state(kept.arrays, slots_of({"w": torch.zeros(2, 3)}))["w"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(ValueError, match="another model"):
        read_state(kept.arrays, slots_of({"v": torch.zeros(2, 3)}))
    kept.arrays["w"] = Array(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="not finite"):
        read_tensors(kept.arrays, WEIGHTS.tensors)
