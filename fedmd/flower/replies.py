"""A model update as it arrives in anybody's Flower app: validated, and read one at a time.

Nothing in a reply is believed: not its records, their keys, an array's declared shape or dtype, nor its values.
Flower's strategies insist that replies agree on their layout and end the run when one differs, so that is settled here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from numpy.typing import NDArray
from torch import Tensor

Layout = tuple[str, str, tuple[tuple[str, int], ...]]


def layout(reply: Message, weight_key: str, max_weight: float = math.inf) -> Layout:
    """A reply's record names, and its metrics' names and lengths (-1 for a scalar), in a comparable form.

    Raises:
        ValueError: the reply is an error, has not one array and one metric record, or no usable `weight_key`.
    """
    if reply.has_error():
        raise ValueError(f"the node answered with error {reply.error.code}: {_last_line(reply.error.reason)}")
    arrays, metrics = reply.content.array_records, reply.content.metric_records
    if len(arrays) != 1 or len(metrics) != 1:
        raise ValueError(f"a reply must have one array and one metric record, not {len(arrays)} and {len(metrics)}")
    ((array_name, _),), ((metric_name, values),) = arrays.items(), metrics.items()
    weight = values.get(weight_key)
    if not isinstance(weight, int | float) or not (math.isfinite(weight) and 0 < weight <= max_weight):
        raise ValueError(f"{weight_key} must be a number above 0 and at most {max_weight}, not {weight!r}"[:200])
    sizes = tuple(sorted((key, len(value) if isinstance(value, list) else -1) for key, value in values.items()))
    return array_name, metric_name, sizes


def commonest(layouts: Sequence[Layout]) -> Layout:
    """What most replies look like, in whatever order they came."""
    return max(Counter(layouts).items(), key=lambda item: (item[1], item[0]))[0]


def array_record(reply: Message) -> ArrayRecord:
    """The one array record of a reply that has a `layout`."""
    return next(iter(reply.content.array_records.values()))


def metric_record(reply: Message) -> MetricRecord:
    """The one metric record of a reply that has a `layout`."""
    return next(iter(reply.content.metric_records.values()))


def read_state(record: ArrayRecord, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of `record` as CPU tensors in the order of `model`, a state dict that says what is allowed.

    Floating entries must have the model's dtype; its integer entries may arrive as integers or floats (every averaging
    strategy makes floats of counters).

    Raises:
        ValueError: a key, shape, dtype or value is not what the model can load.
    """
    if set(record) != set(model):
        wrong = sorted(set(record) ^ set(model))
        raise ValueError(f"the arrays are not the model's: {wrong[:3]} missing or unknown"[:200])
    return {name: torch.from_numpy(_read(name, record[name], own)) for name, own in model.items()}


def in_order(record: ArrayRecord, names: Sequence[str]) -> None:
    """Sort the record's entries, in place: strategies that pair arrays by position would mix them up."""
    if list(record) != list(names):
        for name in names:
            record[name] = record.pop(name)


def _read(name: str, array: Array, own: Tensor) -> NDArray[np.generic]:
    if tuple(array.shape) != tuple(own.shape):  # the declared one, before anything is allocated
        raise ValueError(f"{name} must have shape {list(own.shape)}, not {list(array.shape)}"[:200])
    try:
        value = array.numpy()
    except Exception as error:  # NumPy's reader answers bad bytes with BadZipFile, TokenError, OverflowError, ...
        raise ValueError(f"{name} cannot be read: {type(error).__name__}") from error
    if not isinstance(value, np.ndarray) or value.shape != tuple(own.shape):
        raise ValueError(f"{name} must have shape {list(own.shape)}, not {list(getattr(value, 'shape', ()))}"[:200])
    if own.is_floating_point():
        fits = value.dtype == np.dtype(str(own.dtype).removeprefix("torch."))
    else:
        fits = value.dtype.kind in "iufb"
    if not fits:
        raise ValueError(f"{name} must be {own.dtype}, not {value.dtype}"[:200])
    if value.size and not (math.isfinite(value.min()) and math.isfinite(value.max())):  # both pass NaN on
        raise ValueError(f"{name} has values that are not finite")
    return cast(NDArray[np.generic], value)


def _last_line(reason: str | None) -> str:
    """What a traceback ends with, fit for a terminal."""
    lines = [line.strip() for line in (reason or "no reason given").splitlines() if line.strip()]
    return "".join(character for character in lines[-1] if character.isprintable())[-300:] if lines else ""
