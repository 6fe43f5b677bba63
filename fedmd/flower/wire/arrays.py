"""Arrays as they came over the wire: read where they lie, and nothing that they say about themselves is believed.

Flower's `Array.numpy()` is `np.load`: it allocates whatever a header declares before it looks for the bytes, opens zip
archives, and overlooks what lies behind the data. Here a header is held against the bytes that were really sent, and
the array is a view of these: no copy is made, nothing is allocated, no pickle is ever loaded.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from fedmd.flower.wire.reasons import shown

if TYPE_CHECKING:
    from torch import Tensor

Values = NDArray[np.generic]
Header = tuple[tuple[int, ...], bool, np.dtype[np.generic], str, int, int]
"""Shape, whether it is column-major, dtype, its name, the number of values, and where they begin."""
Slots = Mapping[str, tuple[tuple[int, ...], np.dtype[np.generic] | None]]
"""Shape and dtype of the tensors a model has by name; None: a counter, which may come as any kind of number."""

_COUNTERS = frozenset(map(np.dtype, ("?", "u1", "i1", "i2", "i4", "i8", "f2", "f4", "f8")))  # PyTorch knows these
_SHORT = 256  # bytes; every header that NumPy writes of a tensor without fields has 128
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class ArrayView(Array):
    """Values that lie in this process, as one of Flower's arrays: the bytes are made when somebody sends them.

    So they go by reference from client to server in one process, and through shared memory between Ray's. Whoever makes
    one gives its `values` away; they are read-only from then on. Its bytes, and a hash of them, are those of `Array`.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        own = np.ascontiguousarray(values).reshape(values.shape)  # which makes a vector of a number
        own.flags.writeable = False
        self.values = own
        self.dtype, self.shape, self.stype = str(own.dtype), own.shape, "numpy.ndarray"

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The values in .npy form."""
        return b"".join(pieces(self))

    def numpy(self) -> NDArray[Any]:
        """The values themselves."""
        return self.values


def views(tensors: "Mapping[str, Tensor]") -> ArrayRecord:
    """A record of `tensors`, which belong to it from now on."""
    return record_of({name: ArrayView(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()})


def record_of(arrays: Mapping[str, Array]) -> ArrayRecord:
    """A record of these very arrays; `ArrayRecord(arrays)` copies them."""
    record = ArrayRecord()
    record.update(arrays)
    return record


def pieces(array: Array) -> Iterable[bytes | memoryview]:
    """The array's bytes, in parts that lie somewhere already."""
    if not isinstance(array, ArrayView):
        return (array.data,)
    header = _npy_header(array.values.dtype, array.shape)
    return (header, array.values.reshape(-1).view(np.uint8).data) if array.values.size else (header,)


def size_of(array: Array) -> int:
    """How many bytes `pieces` are."""
    return sum(map(len, pieces(array)))


@lru_cache(maxsize=1024)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    file = BytesIO()
    described = {"shape": shape, "fortran_order": False, "descr": npy.dtype_to_descr(dtype)}
    npy.write_array_header_1_0(file, described)  # type: ignore[no-untyped-call]
    return file.getvalue()


def read_array(name: str, array: Array) -> Values:
    """A read-only view of the array in .npy form that `array` holds. Raises ValueError with a reason, and no other."""
    if isinstance(array, ArrayView):
        return array.values
    if array.stype != "numpy.ndarray":
        raise ValueError(f"{name} cannot be read: it is serialised as {shown(array.stype)}")
    try:
        shape, fortran_order, dtype, dtype_name, count, start = _header_of(array.data)
        sized = count * dtype.itemsize == len(array.data) - start
        if sized and count:
            flat = np.frombuffer(array.data, dtype, count, start)
            values = flat.reshape(shape, order="F" if fortran_order else "C")
        elif sized:
            values = np.zeros(shape, dtype)
    except Exception as error:  # bad bytes: ValueError, KeyError, SyntaxError, TokenError, RecursionError, MemoryError
        raise ValueError(f"{name} cannot be read: {type(error).__name__}") from error
    if not sized:
        raise ValueError(f"{name} cannot be read: what its header declares is not the {len(array.data)} bytes sent")
    if (array.dtype, tuple(array.shape)) != (dtype_name, values.shape):
        raise ValueError(
            f"{name} is declared as {shown(array.dtype)} {shown(list(array.shape))}, "
            f"but it is {dtype_name[:40]} {shown(list(values.shape))}"
        )
    return values if values.flags.aligned else values.copy()


def _header_of(data: bytes) -> Header:
    """The header of `data`; one that was seen lately is not parsed again, as all clients send a model's same few."""
    end = 10 + int.from_bytes(data[8:10], "little")  # of format 1.0
    return _parsed(data[:end]) if data[6:8] == b"\x01\x00" and end <= _SHORT else _parse(data)


def _parse(data: bytes) -> Header:
    file = BytesIO(data)
    shape, fortran_order, dtype = _HEADERS[npy.read_magic(file)](file)  # type: ignore[no-untyped-call]
    if min(shape, default=0) < 0:
        raise ValueError("a negative length")
    return shape, fortran_order, dtype, str(dtype), math.prod(shape), file.tell()


_parsed = lru_cache(maxsize=1024)(_parse)


def read_tensors(record: ArrayRecord | None, slots: Slots) -> dict[str, Values]:
    """The arrays of `record` by name, in the order of `slots`, each finite and of its shape and dtype.

    Raises ValueError with a reason.
    """
    if record is None:
        raise ValueError("there is no update")
    if set(record) != set(slots):
        missing, extra = sorted(set(slots) - set(record)), sorted(set(record) - set(slots))
        raise ValueError(f"tensors of another model: {shown(missing)} missing, {shown(extra)} unknown")
    return {name: _read_tensor(name, record[name], *slot) for name, slot in slots.items()}


def _read_tensor(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic] | None) -> Values:
    values = read_array(name, array)
    if values.dtype != dtype if dtype is not None else values.dtype not in _COUNTERS:
        raise ValueError(f"{name} must be {dtype or 'any number'}, not {str(values.dtype)[:40]}")
    if values.shape != shape:
        raise ValueError(f"{name} must have shape {list(shape)}, not {shown(list(values.shape))}")
    if not is_finite(values):
        raise ValueError(f"{name} has values that are not finite")
    return values


def is_finite(values: Values) -> bool:
    """Whether no real number in `values` is infinite or NaN.

    In one pass: no square is negative, so infinities and NaN cannot cancel out and their sum is finite only where all
    values are. A sum that is not may have overflowed; then every value is looked at.
    """
    if values.dtype.kind != "f":
        return True
    flat = cast("NDArray[np.float64]", values.ravel(order="K"))
    return math.isfinite(np.vdot(flat, flat)) or bool(np.isfinite(flat).all())
