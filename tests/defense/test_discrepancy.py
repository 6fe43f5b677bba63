"""Eq (5) against scipy in float64, a number worked out by hand, and what must stay untouched."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr, softmax
from torch import nn

from fedmd.defense.discrepancy import discrepancy_from_logits, memorization_discrepancy


def tiny_net(seed: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(256, 4),
    )
    nn.init.normal_(net[1].running_mean, std=0.3)
    nn.init.uniform_(net[1].running_var, 0.5, 2.0)
    return net.to(dtype)


def by_scipy(historical_logits: np.ndarray, current_logits: np.ndarray) -> np.ndarray:
    p, q = softmax(historical_logits, axis=1), softmax(current_logits, axis=1)
    return rel_entr(p, q).sum(axis=1)


def test_a_number_worked_out_by_hand() -> None:
    # p_h = (3/4, 1/4), p_t = (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.1308 nats; the other way 0.1438
    historical = torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    current = torch.tensor([[7.0, 7.0]], dtype=torch.float64)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert discrepancy_from_logits(historical, current).item() == pytest.approx(expected, rel=1e-12)
    assert expected == pytest.approx(0.13081, abs=1e-5)
    assert discrepancy_from_logits(current, historical).item() == pytest.approx(0.14384, abs=1e-5)


def test_models_against_scipy() -> None:
    historical, current = tiny_net(0).eval(), tiny_net(1).eval()
    x = torch.rand(17, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = by_scipy(historical(x).numpy(), current(x).numpy())
    d = memorization_discrepancy(historical, current, x)
    assert d.shape == (17,)
    assert d.dtype == torch.float64
    assert not d.requires_grad
    np.testing.assert_allclose(d.numpy(), expected, rtol=1e-11)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.float64, (2, 5, 4), elements=st.floats(-30, 30)),
    st.floats(-100, 100),
)
def test_logits_against_scipy_never_negative_and_blind_to_shifts(logits: np.ndarray, shift: float) -> None:
    h, t = torch.from_numpy(logits[0]), torch.from_numpy(logits[1])
    d = discrepancy_from_logits(h, t)
    assert (d >= 0).all()
    np.testing.assert_allclose(d.numpy(), by_scipy(logits[0], logits[1]), rtol=1e-6, atol=1e-11)
    torch.testing.assert_close(discrepancy_from_logits(h + shift, t - shift), d, rtol=1e-6, atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (6, 10), elements=st.floats(-50, 50, width=32)), st.floats(-1e-4, 1e-4))
def test_float32_never_dips_below_zero_where_the_models_agree(logits: np.ndarray, nudge: float) -> None:
    h = torch.from_numpy(logits)
    assert (discrepancy_from_logits(h, h * (1 + nudge)) >= 0).all()
    assert (discrepancy_from_logits(h, h) == 0).all()


def test_extremes() -> None:
    inf = math.inf
    h = torch.tensor([[0.0, -inf], [1e4, 0.0], [math.nan, 0.0], [0.0, 0.0]])
    t = torch.tensor([[0.0, -inf], [0.0, 1e4], [0.0, 0.0], [0.0, -inf]])
    d = discrepancy_from_logits(h, t)
    assert d[0] == 0  # a class neither model believes in
    assert d[1] == 1e4  # confident and opposite: large but finite
    assert d[2].isnan()  # a broken model must not look harmless
    assert d[3] == inf


def test_half_precision_is_widened_and_gradients_flow() -> None:
    h, t = torch.randn(3, 4, dtype=torch.float16), torch.randn(3, 4, requires_grad=True)
    d = discrepancy_from_logits(h, t)
    assert d.dtype == torch.float32
    (gradient,) = torch.autograd.grad(d.sum(), t)
    torch.testing.assert_close(gradient, (t.softmax(1) - h.float().softmax(1)).detach())


@pytest.mark.parametrize(("a", "b"), [((3, 4), (3, 5)), ((3, 4), (2, 4)), ((4,), (4,))])
def test_shapes_that_do_not_fit_are_named(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"historical_logits and current_logits .* \[N, K\]"):
        discrepancy_from_logits(torch.zeros(a), torch.zeros(b))


def test_an_empty_batch() -> None:
    assert memorization_discrepancy(tiny_net(0), tiny_net(1), torch.zeros(0, 1, 8, 8)).shape == (0,)


def test_models_stay_as_they_were() -> None:
    historical, current = tiny_net(0).train(), tiny_net(1).train()
    current[1].eval()
    historical.requires_grad_(False)
    states = [copy.deepcopy(m.state_dict()) for m in (historical, current)]
    x = torch.rand(9, 1, 8, 8, dtype=torch.float64)
    first = memorization_discrepancy(historical, current, x)
    assert torch.equal(first, memorization_discrepancy(historical, current, x))  # dropout is off
    for model, state in zip((historical, current), states, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in current] == [True, False, True, True, True, True]
    assert all(m.training for m in historical)
    assert not any(p.requires_grad for p in historical.parameters())
    assert all(p.requires_grad for p in current.parameters())
