"""Is the model being made ready for a trigger? The gradients of trusted data say so before the trigger comes.

    A_t = cos(∇CE_A(θ_t), ∇CE_B(θ_t)),   A and B the halves of the trusted set, whole vectors, batch norm in train mode

A is the attackers' S, eq (4), as the server can measure it. An ordinary step on clean data helps on other clean data:
A > 0. Accumulative pushes turn the gradients of ordinary batches against each other, those of data that nobody has
touched, too; below 0 a step on trusted data harms. An extension of ours; it is a warning, and takes no part in what
becomes of updates.

The alarm is a one-sided CUSUM (Page, Continuous Inspection Schemes, 1954): g ← max(0, g + level − A_t), alarm from
g > limit on.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy

from fedmd.storage import Saved
from fedmd.training.evaluate import batch_normalising
from fedmd.types import Canary


def half_gradients_cosine(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """A of θ_t = ``model`` on the trusted images `x` [N, C, H, W] with labels `y` [N], N >= 4; in [-1, 1].

    The halves are the even and the odd samples. The model stays as it is. 0 where a gradient vanishes.
    """
    own = copy.deepcopy(model).requires_grad_(True)  # whose running statistics may move
    gradients = []
    with batch_normalising(own), torch.enable_grad():
        for half in (slice(0, None, 2), slice(1, None, 2)):
            parts = torch.autograd.grad(
                cross_entropy(own(x[half]), y[half].long()), list(own.parameters()), materialize_grads=True
            )
            gradients.append(torch.cat([part.reshape(-1) for part in parts]))
    first, second = gradients
    return cosine_similarity(first, second, dim=0).item()


class CanaryWatch:
    """`half_gradients_cosine` once a round, and the alarm; see the module.

    Args:
        level, limit: of the CUSUM; a run whose A stays at or above `level` never alarms.
    """

    def __init__(self, x: Tensor, y: Tensor, *, level: float = 0.0, limit: float = 0.5) -> None:
        self._x, self._y, self._level, self._limit = x, y, level, limit
        self._sum = 0.0

    def look(self, model: nn.Module) -> Canary:
        """One more round's value, under the round's global model."""
        return self.note(half_gradients_cosine(model, self._x, self._y))

    def note(self, value: float) -> Canary:
        """The same with a `value` that was measured already; one that is no number counts as -1."""
        value = value if math.isfinite(value) else -1.0
        self._sum = max(0.0, self._sum + self._level - value)
        return Canary(value, self._sum > self._limit)

    def save(self) -> Saved:
        """What `restore` needs to go on from here."""
        return {"sum": self._sum}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self._sum = float(saved["sum"])
