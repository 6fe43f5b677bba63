"""Is the model being made ready for a trigger? One virtual step on trusted data says so before the trigger comes.

    C_t = mean over the two halves of the trusted set of  D_B(θ_t, θ_t − lr ∇CE_A(θ_t)),   batch norm in train mode

A is one half, B the other, D_B the mean discrepancy (5) on B. Accumulative pushes make gradients of ordinary batches
long and the loss around θ_t steep, so that an ordinary step on data which nobody has touched comes to change the
answers to other such data as only the trigger should. An extension of ours; it is a warning, and takes no part in what
becomes of updates.

The alarm is a one-sided CUSUM (Page, Continuous Inspection Schemes, 1954) of log(C_t / C_0), C_0 the median of the
first rounds: g ← max(0, g + log(C_t / C_0) − slack), alarm from g > limit on.

The cosine of the two halves' gradients, which is the attackers' S with trusted data, is no such sign: they lower it
between their own two batches, and it *rose* on trusted ones.
"""

import copy
import math
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.storage import Saved
from fedmd.training.evaluate import batch_normalising
from fedmd.types import Canary

_SMALLEST, _LARGEST = 1e-12, 1e12  # nats; for the logarithm of what rounds to zero, or is no number
LEAST_IMAGES = 4  # two for each half: batch norm has no variance of one


def step_discrepancy(model: nn.Module, x: Tensor, y: Tensor, *, lr: float) -> float:
    """C of θ_t = ``model`` on the trusted images `x` [N, C, H, W] with labels `y` [N], N >= LEAST_IMAGES: nats.

    The halves are the even and the odd samples. The model stays as it is.
    """
    own = copy.deepcopy(model).requires_grad_(True)  # whose running statistics may move
    parameters = list(own.parameters())
    halves = [(x[first::2], y[first::2]) for first in (0, 1)]
    values = []
    with batch_normalising(own):
        for (step_x, step_y), (other_x, _) in (halves, halves[::-1]):
            with torch.enable_grad():
                loss = cross_entropy(own(step_x), step_y.long())
                gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
            with torch.no_grad():
                before, start = own(other_x), [parameter.clone() for parameter in parameters]
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.sub_(lr * gradient)
                values.append(discrepancy_from_logits(before, own(other_x)).mean().item())
                for parameter, origin in zip(parameters, start, strict=True):
                    parameter.copy_(origin)
    return sum(values) / len(values)


class CanaryWatch:
    """`step_discrepancy` once a round, and the alarm; see the module.

    Args:
        lr: of the virtual step, the clients' own.
        rounds: the first ones, whose median is C_0.
        slack, limit: of the CUSUM, in units of log C; a run whose C stays below e**slack times C_0 never alarms.
    """

    def __init__(
        self, x: Tensor, y: Tensor, *, lr: float, rounds: int = 10, slack: float = 0.7, limit: float = 5.0
    ) -> None:
        self._x, self._y, self._lr = x, y, lr
        self._rounds, self._slack, self._limit = rounds, slack, limit
        self._first: list[float] = []
        self._sum = 0.0

    def look(self, model: nn.Module) -> Canary:
        """One more round's value, under the round's global model."""
        return self.note(step_discrepancy(model, self._x, self._y, lr=self._lr))

    def note(self, value: float) -> Canary:
        """The same with a `value` that was measured already; one that is no number counts as infinite."""
        value = value if math.isfinite(value) else math.inf
        if len(self._first) < self._rounds:
            self._first.append(value)
            return Canary(value, False)
        ratio = _log(value) - _log(median(self._first))
        self._sum = max(0.0, self._sum + ratio - self._slack)
        return Canary(value, self._sum > self._limit)

    def save(self) -> Saved:
        """What `restore` needs to go on from here."""
        return {"first": list(self._first), "sum": self._sum}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self._first, self._sum = list(saved["first"]), float(saved["sum"])


def _log(value: float) -> float:
    """A finite number also where `value` is 0 or infinite."""
    return math.log(min(max(value, _SMALLEST), _LARGEST))
