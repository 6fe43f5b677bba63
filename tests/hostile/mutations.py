"""Replies a hostile or broken client may send: a valid one, changed in ways that have names, from a seed.

Everything works on Flower's protocol buffers, where more can be wrong than Flower's own classes let one write down.
Only the standard library, NumPy and Flower: a simulated client builds the same replies in its worker.
"""

import io
import pickle
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from flwr.proto.error_pb2 import Error
from flwr.proto.message_pb2 import Message
from flwr.proto.recorddict_pb2 import Array, ArrayRecord, ConfigRecord, ConfigRecordValue, MetricRecord, RecordDict

Mutation = Callable[[Message, Random], None]
LONG = "A" * 5000
WORDS = [
    "",
    "fedmd",
    "batch.0",
    "batch.1",
    "batch.99",
    "update.0",
    "update.1",
    "images",
    "labels",
    "é",
    "\u202e",
    "\x00\n",
]
WORDS += ["model", "num-examples", "clients", LONG, "../../etc", "=1+1", "\U0001f4a3" * 40]
INTEGERS = [0, 1, 2, -1, 3, 7, 255, 2**31, -(2**31), 2**63 - 1, -(2**63)]
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-310, 1e308, float("nan"), float("inf"), -float("inf")]
DTYPES = ["u1", "i1", "i8", ">i8", "i4", "f4", ">f4", "f8", "f2", "?", "c8", "U3", "S2", "M8[s]", "V4"]
SHAPES = [
    "()",
    "(0,)",
    "(-1,)",
    "(3,)",
    "(True, 1, 8, 8)",
    "(4, 1, 8, 8)",
    "(2, 1, 8, 8,)",
    "(0, 1, 8, 8)",
    "(-4, -1, 8, 8)",
]
SHAPES += [
    "(1000000000000, 1, 8, 8)",
    "(99999999999999999999999,)",
    "(4294967296, 4294967296)",
    "(2147483648,)",
    "3",
    "None",
]
SHAPES += ["(" + "1," * 70 + ")", "(" * 200, "(1e3,)", "'3'", "(4, 1, 8, 8", "__import__('os').abort()"]
DESCRS = [
    "'|u1'",
    "'<i8'",
    "'<f4'",
    "'|O'",
    "'>f4'",
    "'<f8'",
    "[('a', '|O')]",
    "[('a', '|u1')]",
    "[()]",
    "'|V0'",
    "'<U9'",
    "None",
    "5",
]


class Bomb:
    """Leaves a mark in `builtins` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import builtins; builtins.PICKLE_WAS_LOADED = True",)


def mutated(valid: bytes, names: list[str], seed: int) -> bytes:
    """The serialised message `valid` after the mutations `names`, one after another; the last may leave no message."""
    message, rng = Message.FromString(valid), Random(seed)
    for name in names:
        MUTATIONS[name](message, rng)
    data = message.SerializeToString()
    return damaged(data, rng) if BYTES in names else data


def npy(array: Any, *, allow_pickle: bool = False) -> bytes:
    """What `np.save` writes."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def damaged(data: bytes, rng: Random) -> bytes:
    """`data` with a few bytes changed, perhaps cut off or made longer."""
    changed = bytearray(data)
    for _ in range(rng.choice([0, 1, 1, 3, 20])):
        if changed:
            changed[min(int(rng.expovariate(1 / 60)), len(changed) - 1)] = rng.randrange(256)
    how = rng.randrange(4)
    if how == 0:
        return bytes(changed[: rng.randrange(len(changed) + 1)])
    return bytes(changed) + rng.randbytes(rng.choice([1, 8, 300])) if how == 1 else bytes(changed)


# -- pieces ---------------------------------------------------------------------------------------------------------


def _value(rng: Random) -> ConfigRecordValue:
    """Any value of a config record, or none at all."""
    value, kind = ConfigRecordValue(), rng.randrange(11)
    scalars: list[Any] = [rng.choice(FLOATS), rng.choice(INTEGERS), rng.random() < 0.5, rng.choice(WORDS), b"\xff" * 9]
    fields = ["double", "sint64", "bool", "string", "bytes"]
    lists = ["double_list", "sint_list", "bool_list", "string_list", "bytes_list"]
    if kind < 5:
        setattr(value, fields[kind], scalars[kind])
    elif kind < 10:
        field = getattr(value, lists[kind - 5])
        field.SetInParent()
        field.vals.extend([scalars[kind - 5]] * rng.choice([0, 1, 2, 500]))
    return value


def _array(rng: Random) -> Array:
    """A well-formed array of a random kind."""
    shape = rng.choice(
        [(), (3,), (4,), (0,), (4, 1, 8, 8), (0, 1, 8, 8), (300, 1, 8, 8), (2, 1, 8, 8), (1, 2, 3, 4, 5)]
    )
    values = np.zeros(shape, rng.choice(DTYPES))
    return Array(dtype=str(values.dtype), shape=shape, stype="numpy.ndarray", data=npy(values))


def _record(rng: Random) -> dict[str, Any]:
    """A record of any kind, as keyword of RecordDict.Item."""
    kind = rng.randrange(4)
    if kind == 0:
        items = [ArrayRecord.Item(key=rng.choice(WORDS), value=_array(rng)) for _ in range(rng.randrange(3))]
        return {"array_record": ArrayRecord(items=items)}
    if kind == 1:
        config = [ConfigRecord.Item(key=rng.choice(WORDS), value=_value(rng)) for _ in range(rng.randrange(3))]
        return {"config_record": ConfigRecord(items=config)}
    return {"metric_record": MetricRecord()} if kind == 2 else {}


def _arrays(message: Message) -> list[Any]:
    return [a for item in message.content.items if item.HasField("array_record") for a in item.array_record.items]


def _each_array(change: Callable[[Array, Random], None]) -> Mutation:
    """A mutation of one of the arrays, where there is one."""

    def mutate(message: Message, rng: Random) -> None:
        if arrays := _arrays(message):
            change(rng.choice(arrays).value, rng)

    return mutate


def _header(message: Message) -> Any:
    """The items of the protocol's header; of a throw-away one where there is none."""
    for item in message.content.items:
        if item.key == "fedmd" and item.HasField("config_record"):
            return item.config_record.items
    return ConfigRecord().items


def _set_header(message: Message, name: str, value: ConfigRecordValue) -> None:
    for item in _header(message):
        if item.key == name:
            item.value.CopyFrom(value)


# -- mutations of records -------------------------------------------------------------------------------------------


def _drop_record(message: Message, rng: Random) -> None:
    if message.content.items:
        del message.content.items[rng.randrange(len(message.content.items))]


def _rename_record(message: Message, rng: Random) -> None:
    if message.content.items:
        rng.choice(message.content.items).key = rng.choice(
            [*WORDS, f"batch.{rng.randrange(30)}", f"update.{rng.randrange(30)}"]
        )


def _double_record(message: Message, rng: Random) -> None:
    """The same key twice: a map that is none."""
    if message.content.items:
        chosen = rng.choice(message.content.items)
        message.content.items.append(RecordDict.Item(key=chosen.key, **_record(rng)) if rng.random() < 0.7 else chosen)


def _add_record(message: Message, rng: Random) -> None:
    message.content.items.append(RecordDict.Item(key=rng.choice(WORDS), **_record(rng)))


def _other_kind(message: Message, rng: Random) -> None:
    if message.content.items:
        index = rng.randrange(len(message.content.items))
        message.content.items[index].CopyFrom(RecordDict.Item(key=message.content.items[index].key, **_record(rng)))


def _array_keys(message: Message, rng: Random) -> None:
    records = [item.array_record for item in message.content.items if item.HasField("array_record")]
    if not records or not (record := rng.choice(records)).items:
        return
    how, index = rng.randrange(4), rng.randrange(len(record.items))
    if how == 0:
        del record.items[index]
    elif how == 1:
        record.items[index].key = rng.choice(WORDS)
    else:
        key = record.items[index].key if how == 2 else rng.choice(WORDS)
        record.items.append(ArrayRecord.Item(key=key, value=_array(rng)))


# -- mutations of arrays --------------------------------------------------------------------------------------------


def _declared(array: Array, rng: Random) -> None:
    """What Flower says about the array, while its bytes stay."""
    how = rng.randrange(3)
    if how == 0:
        array.dtype = rng.choice([*DTYPES, *WORDS, "float32", "object"])
    elif how == 1:
        array.stype = rng.choice(["", "pickle", "torch.pickle", "numpy", LONG])
    else:
        del array.shape[:]
        array.shape.extend(rng.choice([[], [0], [-1], [2**31 - 1] * 2, [4, 1, 8, 8], [1] * 70]))


def _another(array: Array, rng: Random) -> None:
    array.CopyFrom(_array(rng))


def _bytes(array: Array, rng: Random) -> None:
    array.data = rng.choice([b"", b"PK\x03\x04", rng.randbytes(60), array.data[:-1], array.data + b"\x00"])


def _damage(array: Array, rng: Random) -> None:
    array.data = damaged(array.data, rng)


def _pickle(array: Array, rng: Random) -> None:
    bombs = np.array([Bomb()] * 4, dtype=object)
    archive = io.BytesIO()
    np.savez(archive, bombs, allow_pickle=True)
    array.data = rng.choice([npy(bombs, allow_pickle=True), pickle.dumps(Bomb()), archive.getvalue()])


def _npy_header(array: Array, rng: Random) -> None:
    """A header that declares what it likes, over the body that was there."""
    version, order = rng.choice([b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"]), rng.random() < 0.3
    fields = [f"'descr': {rng.choice(DESCRS)}", f"'fortran_order': {order}", f"'shape': {rng.choice(SHAPES)}"]
    if rng.random() < 0.2:
        fields[rng.randrange(3)] = rng.choice(["'more': 1", "'shape': (4,)", ""])
    text = ("{" + ", ".join(fields) + ", }\n").encode()
    size = rng.choice([len(text)] * 6 + [0, 65535])
    array.data = (
        b"\x93NUMPY" + version + size.to_bytes(4 if version == b"\x02\x00" else 2, "little") + text + array.data[128:]
    )


def _values(array: Array, rng: Random) -> None:
    """Other numbers in the same place: mostly bytes 0xff and 0x7f and 0x80, which are NaN, infinite, -1, too large."""
    body = bytearray(array.data)
    for _ in range(rng.choice([1, 4, 64])):
        if len(body) > 128:
            at = 128 + 4 * rng.randrange((len(body) - 128 + 3) // 4)
            body[at : at + 4] = rng.choice(
                [b"\xff" * 4, b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\x01\x00\x00\x00", b"\xff\xff\x7f\x7f"]
            )[: len(body) - at]
    array.data = bytes(body)


# -- mutations of the header and of the whole -----------------------------------------------------------------------


def _field(name: str) -> Mutation:
    def mutate(message: Message, rng: Random) -> None:
        _set_header(message, name, _value(rng))

    return mutate


def _lie(message: Message, rng: Random) -> None:
    """About the number of examples or the client, one number among good ones."""
    lists = [item.value.sint_list for item in _header(message) if item.value.HasField("sint_list")]
    if lists and (chosen := rng.choice(lists)).vals:
        chosen.vals[rng.randrange(len(chosen.vals))] = rng.choice(INTEGERS)


def _another_round(message: Message, rng: Random) -> None:
    for item in _header(message):
        if item.key == "round":
            item.value.sint64 = rng.choice([item.value.sint64 % 1000 - 1, item.value.sint64 % 1000 + 1, -1, 2**63 - 1])


def _error(message: Message, rng: Random) -> None:
    reason = rng.choice(["", LONG, "Traceback:\n\n  \x1b[31mred\u2028", "\n\n", "ValueError: disk", "x\n" * 3000])
    message.error.CopyFrom(Error(code=rng.choice([0, 2, -1, 2**31 - 1]), reason=reason))
    if rng.random() < 0.9:
        message.ClearField("content")


def _sender(message: Message, rng: Random) -> None:
    message.metadata.src_node_id = rng.choice([0, 1, 101, 102, 2**63])


def _another_request(message: Message, rng: Random) -> None:
    message.metadata.reply_to_message_id = rng.choice(["", "request-1", "request-30", LONG])


def _nothing(message: Message, rng: Random) -> None:
    message.ClearField("content")
    if rng.random() < 0.5:
        message.content.SetInParent()


BYTES = "bytes"
MUTATIONS: dict[str, Mutation] = {
    "drop record": _drop_record,
    "rename record": _rename_record,
    "double record": _double_record,
    "add record": _add_record,
    "other kind": _other_kind,
    "array keys": _array_keys,
    "declared": _each_array(_declared),
    "another array": _each_array(_another),
    "array bytes": _each_array(_bytes),
    "damaged array": _each_array(_damage),
    "pickle": _each_array(_pickle),
    "npy header": _each_array(_npy_header),
    "values": _each_array(_values),
    **{f"header {name}": _field(name) for name in ("protocol", "round", "clients", "examples", "seconds")},
    "lie": _lie,
    "another round": _another_round,
    "error": _error,
    "nothing": _nothing,
    "sender": _sender,
    "another request": _another_request,
    BYTES: lambda message, rng: None,
}
