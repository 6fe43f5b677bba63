"""What a net makes of its samples before its last layer."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


def logits_and_features(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits [N, K] and penultimate features [N, d] of `x`, of one forward pass in the mode `model` is in."""
    with penultimate_features(model) as features:
        return model(x), features(len(x))


@contextmanager
def penultimate_features(model: nn.Module) -> Iterator[Callable[[int], Tensor | None]]:
    """A function that gives the penultimate features [n, d] of the latest forward pass of `model`.

    They are the input of the last `nn.Linear` to run, taken on its way in, with its graph where there is one. The
    function is told n, the size of the batch, and gives None where no such layer has run or its input is not of n
    samples.
    """
    latest: Tensor | None = None

    def keep(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal latest
        latest = inputs[0] if inputs else None

    hooks = [layer.register_forward_pre_hook(keep) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        yield lambda n: latest.flatten(1) if latest is not None and latest.dim() > 1 and len(latest) == n else None
    finally:
        for hook in hooks:
            hook.remove()


def has_features(model: nn.Module) -> bool:
    """Whether `penultimate_features` can find anything in `model`."""
    return any(isinstance(layer, nn.Linear) for layer in model.modules())
