"""Eq (10), the candidate models in between, and the largest harmless scale."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor, nn

from fedmd.defense.updates.discrepancy import largest_scale, load_between, update_discrepancy


def net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 3))
    for tensor in model.state_dict().values():
        if not tensor.is_floating_point():
            tensor.fill_(10 * seed)
    return model


X = torch.rand(7, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def test_it_is_the_mean_kl_of_the_historical_answers_from_the_candidates() -> None:
    logits = torch.randn(3, 7, 4, generator=torch.Generator().manual_seed(1))
    one, two, c = log_softmax(logits.double().numpy(), axis=2)
    expected = [(np.exp(h) * (h - c)).sum(axis=1).mean() for h in (one, two)]
    assert update_discrepancy(logits[:2], logits[2]) == pytest.approx(expected, rel=1e-5)
    assert update_discrepancy(logits[:1], logits[0]) == (0,)


def test_answers_that_are_no_numbers_are_infinitely_far() -> None:
    logits = torch.zeros(2, 5, 3)
    assert update_discrepancy(logits, torch.full((5, 3), math.nan)) == (math.inf, math.inf)


@pytest.mark.parametrize("scale", [0.0, 0.25, 1.0])
def test_load_between_is_the_convex_combination_in_place(scale: float) -> None:
    model, current, received = net(3), net(1).state_dict(), net(2).state_dict()
    pointers = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    load_between(model.state_dict(), current, received, scale)
    for name, tensor in model.state_dict().items():
        assert tensor.data_ptr() == pointers[name]
        expected = (1 - scale) * current[name].double() + scale * received[name].double()
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor.double(), expected, rtol=1e-6, atol=1e-7)
        else:
            assert int(tensor) == round(10 + scale * 10)
        if scale in (0, 1):
            assert torch.equal(tensor, (current if scale == 0 else received)[name])


def test_a_counter_that_averaging_made_a_float_is_rounded() -> None:
    model = net(1)
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    state["2.num_batches_tracked"] = torch.tensor(2.9999999)
    load_between(model.state_dict(), state, state, 1.0)
    assert int(model.state_dict()["2.num_batches_tracked"]) == 3


def test_the_largest_scale_of_a_known_curve() -> None:
    assert largest_scale(lambda a: a * a, 1.0) == (1.0, 1.0)
    scale, after = largest_scale(lambda a: 16 * a * a, 1.0)
    assert (scale, after) == (0.25, 1.0)
    assert largest_scale(lambda a: 1e-3 + a, 1e-4) == (0.0, 1e-3)
    assert largest_scale(lambda a: math.inf if a > 0 else 0.0, 5.0) == (0.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10), min_size=17, max_size=17), st.floats(0, 10))
def test_what_is_promised_for_any_curve(values: list[float], threshold: float) -> None:
    asked: list[float] = []

    def curve(a: float) -> float:
        asked.append(a)
        return values[round(16 * a)]

    scale, after = largest_scale(curve, threshold, halvings=4)
    assert after == curve(scale)
    assert len(asked) - 1 <= 6
    if values[16] <= threshold:
        assert scale == 1
    elif values[0] > threshold:
        assert (scale, after) == (0.0, values[0])
    else:
        assert after <= threshold
        assert curve(scale + 1 / 16) > threshold


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 1000), st.floats(0.001, 0.5))
def test_bisection_is_exact_where_logits_are_linear(seed: int, threshold: float) -> None:
    """D is convex along a line of parameters of a linear model: an exhaustive search finds nothing larger."""
    g = torch.Generator().manual_seed(seed)
    start, step, history = torch.randn(4, 3, generator=g), 3 * torch.randn(4, 3, generator=g), torch.zeros(7, 3)
    start = 0.01 * start

    def curve(a: float) -> float:
        logits: Tensor = X.flatten(1).double() @ (start + a * step).double()
        return update_discrepancy(history[None], logits)[0]

    scale, _ = largest_scale(curve, threshold, halvings=6)
    allowed = [k / 64 for k in range(65) if curve(k / 64) <= threshold]
    assert scale == max(allowed)
