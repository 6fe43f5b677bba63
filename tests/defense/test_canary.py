"""The gradients of trusted halves against each other, written out; and when it alarms."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmd.attacks.accumulative_update import accumulative_push
from fedmd.defense.updates.canary import CanaryWatch, half_gradients_cosine

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.rand(12, 1, 4, 4, generator=GENERATOR), torch.randint(3, (12,), generator=GENERATOR)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


def test_it_is_the_cosine_of_two_ordinary_gradients() -> None:
    model = net().eval()
    before = copy.deepcopy(model.state_dict())
    gradients = []
    for first in (0, 1):
        client = copy.deepcopy(model).train()
        cross_entropy(client(X[first::2]), Y[first::2]).backward()
        gradients.append(torch.cat([p.grad.reshape(-1) for p in client.parameters() if p.grad is not None]))
    expected = float(gradients[0] @ gradients[1] / gradients[0].norm() / gradients[1].norm())
    assert half_gradients_cosine(model, X, Y) == pytest.approx(expected, rel=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_it_is_what_the_attackers_lower() -> None:
    """S of the clean trigger on the same two batches."""
    _, similarity = accumulative_push(net(), X[::2], Y[::2], X[1::2], Y[1::2], trigger="clean")
    assert half_gradients_cosine(net(), X, Y) == pytest.approx(similarity, rel=1e-5)


def test_it_alarms_when_the_evidence_is_large_and_not_for_one_odd_round() -> None:
    watch = CanaryWatch(X, Y, level=0.0, limit=0.5)
    assert [watch.note(value).alarm for value in (0.3, -0.4, 0.1)] == [False] * 3  # sums 0, 0.4, 0.3
    other = CanaryWatch(X, Y, level=0.0, limit=0.5)
    other.restore(watch.save())
    assert [w.note(-0.3).alarm for w in (watch, other)] == [True, True]
    assert [watch.note(0.2).alarm for _ in range(2)] == [False, False]


def test_a_gradient_that_is_no_number_counts_against_the_model() -> None:
    assert CanaryWatch(X, Y).note(math.nan).alarm
