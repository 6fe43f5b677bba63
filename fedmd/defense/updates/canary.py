"""Is the model being made ready for a trigger? One virtual step on trusted data says so before the trigger comes.

    C_t = mean over the two halves of the trusted set of  D_B(θ_t, θ_t − lr ∇CE_A(θ_t))

with A one half, B the other, and D_B the mean discrepancy (5) on B. Accumulative pushes turn the gradients of ordinary
batches against each other, so an ordinary step on trusted data, which nobody has touched, comes to do what the trigger
will do: change, and harm, the answers to other data of the same kind. An extension of ours; it is a warning, and takes
no part in what becomes of updates.

The alarm is a one-sided CUSUM (Page, Continuous Inspection Schemes, 1954) of log(C_t / C_0), C_0 the median of the
first rounds: g ← max(0, g + log(C_t / C_0) − slack), alarm from g > limit on.
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

_SMALLEST = 1e-12  # nats; for the logarithm of what rounds to zero


def step_discrepancy(model: nn.Module, x: Tensor, y: Tensor, *, lr: float) -> float:
    """C of θ_t = ``model`` on the trusted images `x` [N, C, H, W] with labels `y` [N], N >= 4: nats, >= 0.

    The halves are the even and the odd samples; batch norm is in train mode for the step, as for a client, and in eval
    mode for the answers, with running statistics as they are. The model stays as it is.
    """
    stepped = copy.deepcopy(model).requires_grad_(True)
    parameters, start = list(stepped.parameters()), [p.detach().clone() for p in stepped.parameters()]
    buffers = {name: buffer.clone() for name, buffer in stepped.named_buffers()}
    values = []
    with torch.no_grad():
        before = stepped.eval()(x)
    for step, look in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        with batch_normalising(stepped), torch.enable_grad():
            gradients = torch.autograd.grad(cross_entropy(stepped(x[step]), y[step].long()), parameters)
        with torch.no_grad():
            for name, buffer in stepped.named_buffers():
                buffer.copy_(buffers[name])
            for parameter, origin, gradient in zip(parameters, start, gradients, strict=True):
                parameter.copy_(origin - lr * gradient)
            values.append(discrepancy_from_logits(before[look], stepped.eval()(x[look])).mean().item())
            for parameter, origin in zip(parameters, start, strict=True):
                parameter.copy_(origin)
    return sum(values) / len(values)


class CanaryWatch:
    """`step_discrepancy` once a round, and the alarm; see the module.

    Args:
        lr: of the virtual step, the clients' own.
        rounds: the first ones, whose median is C_0.
        slack, limit: of the CUSUM, in units of log C.
    """

    def __init__(self, x: Tensor, y: Tensor, *, lr: float, rounds: int = 10, slack: float = 0.7, limit: float = 5.0):
        self._x, self._y, self._lr = x, y, lr
        self._rounds, self._slack, self._limit = rounds, slack, limit
        self._first: list[float] = []
        self._sum = 0.0

    def look(self, model: nn.Module) -> Canary:
        """One more round's value, under the round's global model."""
        return self.note(step_discrepancy(model, self._x, self._y, lr=self._lr))

    def note(self, value: float) -> Canary:
        """The same with a `value` that was measured already; one that is no number raises the alarm."""
        value = value if math.isfinite(value) else math.inf
        if len(self._first) < self._rounds:
            self._first.append(value)
            return Canary(value, False)
        ratio = math.log(max(value, _SMALLEST) / max(median(self._first), _SMALLEST))
        self._sum = max(0.0, self._sum + ratio - self._slack)
        return Canary(value, self._sum > self._limit)

    def save(self) -> Saved:
        """What `restore` needs to go on from here."""
        return {"first": list(self._first), "sum": self._sum}

    def restore(self, saved: Saved) -> None:
        """Put back what `save` returned."""
        self._first, self._sum = list(saved["first"]), float(saved["sum"])
