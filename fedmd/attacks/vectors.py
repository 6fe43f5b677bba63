"""A model's update as one vector and back: attacks in update space are vector arithmetic."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def parameters_only(model: nn.Module, update: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of ``update`` that are parameters of ``model``, in the order of its parameters().

    The rest are buffers, see `Attack.buffers`. Attacks do no arithmetic with them: the papers speak of gradients, which
    they have none of, and a running variance that an attack turned negative would end a run in NaN.
    """
    return {name: update[name] for name, _ in model.named_parameters()}


def flatten(tensors: Mapping[str, Tensor]) -> Tensor:
    """The floating-point entries, in the mapping's order, as one vector [d]; integer entries are left out.

    Raises:
        ValueError: there is no floating-point entry.
    """
    parts = [t.reshape(-1) for t in tensors.values() if t.is_floating_point()]
    if not parts:
        raise ValueError("an update must hold at least one floating-point tensor")
    return torch.cat(parts)


def unflatten(vector: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `flatten`: names, order, shapes and dtypes of ``like``, whose integer entries are handed on.

    Raises:
        ValueError: ``vector`` [d] has another length than `flatten(like)`.
    """
    size = sum(t.numel() for t in like.values() if t.is_floating_point())
    if vector.shape != (size,):
        raise ValueError(f"the vector must have shape [{size}], got {list(vector.shape)}")
    out, start = {}, 0
    for name, tensor in like.items():
        if not tensor.is_floating_point():
            out[name] = tensor
            continue
        stop = start + tensor.numel()
        out[name] = vector[start:stop].view(tensor.shape).to(tensor.dtype)
        start = stop
    return out
