"""How much there is to look at in a reply, found out before any of it is: reading costs no more than what was asked.

Flower sends an array that stands under many names once, and lets an array declare a data type or a shape as long as
the sender likes. So the bytes that came say little about the work to come: everything is counted here as often as it
would be read, and counting stops at the first bound that is passed. What Flower itself spends on decoding a message is
not ours to bound: that takes a memory limit on the server's process.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord

from fedmd.flower.wire.arrays import size_of

_SPARE = 64  # records and arrays beyond those asked for, each refused with its own reason
_CHARACTERS = 1024  # of names and of what an array says about itself, on average; values and characters in a header


@dataclass(frozen=True)
class Extent:
    """The most that a reply may have: `messages` asked for, of `arrays` each, and `data` bytes of arrays in all.

    `source` says where the bound on the data is from.
    """

    messages: int
    arrays: int
    data: int
    source: str


@dataclass(frozen=True)
class Measured:
    """Bytes of array data as far as they were counted, and why the reply is more than may be read (None: it is not)."""

    data: int
    excess: str | None = None


def measure(reply: Message, most: Extent) -> Measured:
    """Count what is in `reply`, up to the first bound of `most` that it passes. Never raises."""
    if reply.has_error():
        return Measured(0)
    records, arrays = most.messages + _SPARE, most.messages * most.arrays + _SPARE
    characters, entries = (records + arrays) * _CHARACTERS, records * _CHARACTERS
    seen_arrays, seen_characters, seen_entries, data = 0, 0, 0, 0
    if len(reply.content) > records:
        return Measured(0, f"the message has more than {records} records")
    for name, record in reply.content.items():
        seen_characters += len(name)
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                seen_arrays += 1
                seen_characters += len(key) + _declared(array)
                data += len(key) + size_of(array)  # as Flower counts them
                if seen_arrays > arrays or seen_characters > characters:
                    break
        else:
            for length in _lengths(record):
                seen_entries += length
                if seen_entries > entries:
                    break
        for seen, allowed, what in (
            (seen_arrays, arrays, "arrays"),
            (seen_characters, characters, "characters of names, types and shapes"),
            (seen_entries, entries, "entries in its headers"),
        ):
            if seen > allowed:
                return Measured(data, f"the message has more than {allowed} {what}")
    if data > most.data:
        return Measured(data, f"the message has {data} bytes of arrays, more than {most.source}")
    return Measured(data)


def _declared(array: Array) -> int:
    """Characters of what an array says about itself; a number counts as many as it could have."""
    lengths = sum(8 if abs(length) < 2**63 else _CHARACTERS**2 for length in array.shape[:4096])
    return len(array.dtype) + len(array.stype) + max(lengths, 8 * len(array.shape))


def _lengths(record: MetricRecord | ConfigRecord) -> Iterator[int]:
    """Of each entry of a configuration or metric record, how many values or characters it has, its key's included."""
    for key, value in record.items():
        yield len(key) + (len(value) if isinstance(value, list | str | bytes) else 1)
        if isinstance(value, list):
            for item in value:
                yield len(item) if isinstance(item, str | bytes) else 0
