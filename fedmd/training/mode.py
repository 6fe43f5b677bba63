"""Look at a model in eval mode and hand it back exactly as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put ``models`` in eval mode for the block; afterwards restore every submodule's own training flag.

    `model.train(was_training)` would not do: it overwrites a submodule that the owner holds in another mode
    than its parent (a frozen BatchNorm inside a training model). Flags come back also when the block raises.
    Models may share submodules. Not for a model that another thread is training at the same time: the flags
    are the model's own.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training
