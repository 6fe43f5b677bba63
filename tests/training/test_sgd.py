"""Our SGD against PyTorch's class, bit for bit."""

import copy

import pytest
import torch
from torch import nn

from fedmd.training.sgd import Sgd


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_numbers_of_torch_optim_sgd(momentum: float, weight_decay: float) -> None:
    ours = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 3))
    theirs = copy.deepcopy(ours)
    mine = Sgd(ours.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=momentum, weight_decay=weight_decay)
    for step in range(4):
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(step))
        layers = 4 if step % 2 else 3  # the last layer has no gradient in every other step
        for net, stepper in ((ours, mine), (theirs, optimizer)):
            stepper.zero_grad()
            net[:layers](x).square().sum().backward()
            stepper.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)
    for parameter, buffer in zip(theirs.parameters(), mine.momentum_buffers, strict=True):
        expected = optimizer.state[parameter].get("momentum_buffer")
        assert (buffer is None) == (expected is None)
        assert buffer is None or torch.equal(buffer, expected)
