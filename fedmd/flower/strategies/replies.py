"""A model update as it arrives in anybody's Flower app: validated, and read one at a time.

Nothing in a reply is believed, see `fedmd.flower.wire.arrays`. Flower's strategies insist that replies agree on
their layout and end the run when one differs, so that is settled here.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fedmd.flower.wire.arrays import Slots, read_tensors
from fedmd.flower.wire.reasons import error_of, shown
from fedmd.flower.wire.updates import as_tensors

Layout = tuple[str, str, tuple[tuple[str, int], ...]]


def layout(reply: Message, weight_key: str, max_weight: float = math.inf) -> Layout:
    """A reply's record names, and its metrics' names and lengths (-1 for a scalar), in a comparable form.

    Raises:
        ValueError: the reply is an error, has not one array and one metric record, or no usable `weight_key`.
    """
    if reply.has_error():
        raise ValueError(error_of(reply))
    arrays, metrics = reply.content.array_records, reply.content.metric_records
    if len(arrays) != 1 or len(metrics) != 1:
        raise ValueError(f"a reply must have one array and one metric record, not {len(arrays)} and {len(metrics)}")
    ((array_name, _),), ((metric_name, values),) = arrays.items(), metrics.items()
    weight = values.get(weight_key)
    if not isinstance(weight, int | float) or not (math.isfinite(weight) and 0 < weight <= max_weight):
        raise ValueError(f"{weight_key} must be a number above 0 and at most {max_weight}, not {shown(weight)}")
    sizes = tuple(sorted((key, len(value) if isinstance(value, list) else -1) for key, value in values.items()))
    return array_name, metric_name, sizes


def commonest(layouts: Sequence[Layout], name: str, before: Layout | None) -> Layout:
    """What most replies look like, in whatever order they came.

    Of several that are equally frequent it is one whose array record has the `name` that the model was sent under, and
    of those the one from the round `before`.
    """
    counted = Counter(layouts)
    return max(sorted(counted), key=lambda layout: (counted[layout], layout[0] == name, layout == before))


def array_record(reply: Message) -> ArrayRecord:
    """The one array record of a reply that has a `layout`."""
    return next(iter(reply.content.array_records.values()))


def metric_record(reply: Message) -> MetricRecord:
    """The one metric record of a reply that has a `layout`."""
    return next(iter(reply.content.metric_records.values()))


def read_state(record: ArrayRecord, slots: Slots) -> dict[str, Tensor]:
    """The arrays of `record` as CPU tensors in the order of `slots`, see `slots_of`. Not to be written to.

    Raises:
        ValueError: a key, shape, dtype or value is not what the model can load.
    """
    return as_tensors(read_tensors(record, slots))


def slots_of(model: Mapping[str, Tensor]) -> Slots:
    """What a state dict has to look like to be loaded like `model`'s.

    Floating entries must have the model's dtype; its integer entries may arrive as integers or floats (every averaging
    strategy makes floats of counters).
    """
    return {
        name: (tuple(own.shape), np.dtype(str(own.dtype).removeprefix("torch.")) if own.is_floating_point() else None)
        for name, own in model.items()
    }


def in_order(record: ArrayRecord, names: Sequence[str]) -> None:
    """Sort the record's entries, in place: strategies that pair arrays by position would mix them up."""
    if list(record) != list(names):
        for name in names:
            record[name] = record.pop(name)
