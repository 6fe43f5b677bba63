"""One net that answers for every candidate."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch import nn

from fedmd.defense.history import Snapshot
from fedmd.defense.updates.canary import CanaryWatch, step_discrepancy
from fedmd.defense.updates.limits import Limits, Past, robust_threshold
from fedmd.defense.updates.screen import UpdateScreen, excess
from fedmd.types import Action

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


def moved(scale: float) -> dict[str, torch.Tensor]:
    """net(1), its last bias moved by `scale`."""
    state = {name: tensor.clone() for name, tensor in net(1).state_dict().items()}
    state["4.bias"] += scale * torch.tensor([1.0, -1.0, 0.0])
    return state


def test_nothing_is_within_a_negative_limit() -> None:
    assert excess((0.0,), (Limits(0.0, -1.0),)) == excess((1.0,), (Limits(0.0, -1.0),)) == math.inf
    assert excess((0.0,), (Limits(0.0, 0.0),)) == 0.0 and excess((0.0,), (Limits(0.0, 1.0),)) == 0.0


def test_what_is_below_a_lower_limit_cannot_be_shortened() -> None:
    screen = UpdateScreen(net(1), X, [Snapshot()], threshold=lambda found: Limits(1e6, 1e9), action="correct")
    screen.start_round(net(1).state_dict())
    (verdict,) = screen.judge([(0, moved(1.0))])
    assert (verdict.action, verdict.scale, verdict.after) == (Action.REJECTED, 0.0, ())


def test_one_client_is_judged_by_the_past_and_what_is_rejected_is_not_remembered() -> None:
    screen = UpdateScreen(net(1), X, [Snapshot()], past=Past(quantile=1.0, factor=3.0, warm_up=2, peers=3))
    actions = []
    for scale in (0.1, 0.2, 2.0, 2.0, 0.3):
        screen.start_round(net(1).state_dict())
        (verdict,) = screen.judge([(0, moved(scale))])
        actions.append(verdict.action)
    assert actions == [Action.ACCEPTED, Action.ACCEPTED, Action.REJECTED, Action.REJECTED, Action.ACCEPTED]
    screen.start_round(net(1).state_dict())
    assert {v.action for v in screen.judge([(i, moved(2.0)) for i in range(3)])} == {Action.ACCEPTED}  # peers agree


def test_clients_that_agree_are_judged_by_the_past_as_well() -> None:
    screen = UpdateScreen(net(1), X, [Snapshot()], past=Past(quantile=1.0, factor=3.0, warm_up=2))
    found = []
    for scale in (0.1, 0.2, 2.0, 0.3):
        screen.start_round(net(1).state_dict())
        found.append({verdict.action for verdict in screen.judge([(i, moved(scale)) for i in range(3)])})
    assert found == [{Action.ACCEPTED}, {Action.ACCEPTED}, {Action.REJECTED}, {Action.ACCEPTED}]


def test_the_canary_looks_at_the_global_model_and_screens_can_be_put_back() -> None:
    def screen() -> UpdateScreen:
        return UpdateScreen(net(1), X, [Snapshot()], past=Past(warm_up=1), canary=CanaryWatch(X, Y, lr=0.1))

    one, other = screen(), screen()
    for current in (net(1), net(2)):
        one.start_round(current.state_dict())
        one.judge([(0, moved(0.1))])
        assert one.canary is not None
        assert one.canary.value == pytest.approx(step_discrepancy(current, X, Y, lr=0.1))
    other.restore(one.save())
    for each in (one, other):
        each.start_round(net(1).state_dict())
    assert one.canary == other.canary
    assert one.judge([(0, moved(1.0))]) == other.judge([(0, moved(1.0))])
