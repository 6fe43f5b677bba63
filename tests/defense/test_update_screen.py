"""One net that answers for every candidate."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from fedmd.defense.history import Snapshot
from fedmd.defense.updates.limits import robust_threshold
from fedmd.defense.updates.screen import UpdateScreen

X = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))


@torch.no_grad()
def log_answers(model: nn.Module) -> np.ndarray:
    answers: np.ndarray = log_softmax(model.eval()(X).double().numpy(), axis=1)
    return answers


def test_the_probe_is_answered_in_eval_mode_whatever_its_batches_and_the_callers_net_stays() -> None:
    model = net(1).train()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    whole = UpdateScreen(model, X, [Snapshot()])
    parts = UpdateScreen(model, [(X[:3], Y[:3]), (X[3:], Y[3:])], [Snapshot()], loss_threshold=robust_threshold)
    for screen in (whole, parts):
        screen.start_round(net(1).state_dict())
    h, c = log_answers(net(1)), log_answers(net(2))
    expected = (np.exp(h) * (h - c)).sum(axis=1).mean()
    assert whole.measure(net(2).state_dict()) == pytest.approx((expected,), rel=1e-5)
    loss = -c[np.arange(7), Y.numpy()].mean()
    assert parts.measure(net(2).state_dict()) == pytest.approx((expected, loss), rel=1e-5)
    assert [module.training for module in model] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
