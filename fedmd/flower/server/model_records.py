"""The server's model as Flower's strategies and clients see it: its arrays, and how an update of them must look."""

import math

import numpy as np
from flwr.app import ArrayRecord

from fedmd.flower.wire import ExpectedUpdate
from fedmd.rounds.global_model import GlobalModel
from fedmd.training.local import floating

_HEADER_BYTES = 1024  # an array's own description, with room to spare


def records_of(model: GlobalModel) -> ArrayRecord:
    """The model's floating-point tensors as Flower arrays."""
    return ArrayRecord({name: tensor.cpu() for name, tensor in floating(model.model.state_dict()).items()})


def bytes_of(expected: ExpectedUpdate) -> int:
    """What one update takes in a message, with room for the arrays' headers."""
    return sum(
        math.prod(shape) * (8 if dtype is None else dtype.itemsize) + _HEADER_BYTES
        for shape, dtype in expected.tensors.values()
    )


def expected_update(model: GlobalModel, max_examples: int) -> ExpectedUpdate:
    """What a valid update of `model` looks like."""
    tensors = floating(model.model.state_dict())
    return ExpectedUpdate({name: (tuple(t.shape), np.dtype(np.float32)) for name, t in tensors.items()}, max_examples)
