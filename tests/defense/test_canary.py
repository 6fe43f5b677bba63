"""One virtual step on trusted data, against the step written out; and when it alarms."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from fedmd.config import ConfigError
from fedmd.defense.catalogue.screening import UpdateScreening
from fedmd.defense.updates.canary import CanaryWatch, step_discrepancy
from fedmd.runs.compose import compose

GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.rand(12, 1, 4, 4, generator=GENERATOR), torch.randint(3, (12,), generator=GENERATOR)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))


def test_it_is_an_ordinary_step_on_one_half_as_the_other_sees_it() -> None:
    model = net().eval()
    before = copy.deepcopy(model.state_dict())
    expected = []
    for own, other in ((0, 1), (1, 0)):
        client = copy.deepcopy(model).train()
        optimizer = torch.optim.SGD(client.parameters(), lr=0.5)
        cross_entropy(client(X[own::2]), Y[own::2]).backward()
        old = client(X[other::2]).log_softmax(dim=1).detach()
        optimizer.step()
        new = client(X[other::2]).log_softmax(dim=1).detach()
        expected.append(float(kl_div(new, old, log_target=True, reduction="batchmean")))
    assert step_discrepancy(model, X, Y, lr=0.5) == pytest.approx(sum(expected) / 2, rel=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training and all(p.grad is None for p in model.parameters())


def test_it_alarms_when_the_evidence_is_large_and_not_for_one_odd_round() -> None:
    watch = CanaryWatch(X, Y, lr=0.1, rounds=3, slack=math.log(2), limit=math.log(8) + 0.01)
    assert [watch.note(value).alarm for value in (1.0, 2.0, 1.0, 16.0)] == [False] * 4  # C_0 is 1, the sum log 8
    assert not watch.note(0.25).alarm  # back to 0
    assert [watch.note(4.0).alarm for _ in range(4)] == [False, False, False, True]  # log 2 a round
    other = CanaryWatch(X, Y, lr=0.1, rounds=3, slack=math.log(2), limit=math.log(8) + 0.01)
    other.restore(watch.save())
    assert other.note(1.0) == watch.note(1.0)


def test_a_model_that_answers_nothing_sensible_alarms() -> None:
    watch = CanaryWatch(X, Y, lr=0.1, rounds=1)
    watch.note(1.0)
    assert watch.note(math.nan).alarm


def test_a_run_survives_that_it_begins_with_steps_that_are_no_numbers() -> None:
    watch = CanaryWatch(X, Y, lr=0.1, rounds=2)
    for _ in range(2):
        assert math.isinf(watch.note(math.nan).value)
    assert [watch.note(value).alarm for value in (1.0, math.inf, 0.0)] == [False] * 3


@pytest.mark.parametrize(("trusted", "probe"), [(20, 3), (3, 20)])
def test_it_needs_two_images_a_half(trusted: int, probe: int) -> None:
    run = compose(["mode=update", "screening.canary=true", f"screening.probe={probe}"]).config
    with pytest.raises(ConfigError, match=r"^screening\.canary: needs 4 trusted images .* leave it 3\.$"):
        UpdateScreening(UpdateScreening.Params()).build_screen(run, net(), (X[:trusted], Y[:trusted]), [])
