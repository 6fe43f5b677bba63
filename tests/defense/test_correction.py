"""Eq (6) and the AT baseline against naive loops written from the text, plus what holds for every input."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.defense.discrepancy import memorization_discrepancy
from fedmd.defense.samples.correction import Correction, adversarial_correct, correct


def tiny_net(seed: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 4),
    )
    for norm in (net[1], net[5]):
        nn.init.normal_(norm.running_mean, std=0.2)
        nn.init.uniform_(norm.running_var, 0.1, 0.5)
    return net.to(dtype)


def batch(n: int, seed: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=dtype)
    x[:, :, 0] = 0.0  # pixels on the edges of [0, 1]
    x[:, :, 1] = 1.0
    return x, torch.randint(4, (n,), generator=generator)


def kl(p_model: nn.Module, q_model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        p, q = p_model(x).softmax(1), q_model(x).softmax(1)
    return (p * (p.log() - q.log())).sum(1)


def one_step(model: nn.Module, x: Tensor, x0: Tensor, y: Tensor, step_size: float, radius: float) -> Tensor:
    x = x.clone().requires_grad_()
    F.cross_entropy(model(x), y).backward()
    assert x.grad is not None
    model.zero_grad()
    moved = x.detach() - step_size * x.grad.sign()
    return torch.clamp(torch.minimum(torch.maximum(moved, x0 - radius), x0 + radius), 0.0, 1.0)


def naive_per_sample(current: nn.Module, historical: nn.Module, x: Tensor, y: Tensor, **k: Any) -> Correction:
    current, historical = copy.deepcopy(current).eval(), copy.deepcopy(historical).eval()
    out, steps, before, after = [], [], [], []
    for n in range(len(x)):
        x0 = xi = x[n : n + 1]
        d = d0 = kl(historical, current, xi)
        taken = 0
        while d > k["threshold"] and taken < k["max_steps"]:
            xi = one_step(current, xi, x0, y[n : n + 1], k["step_size"], k["radius"])
            d = kl(historical, current, xi)
            taken += 1
        out.append(xi)
        steps.append(taken)
        before.append(d0)
        after.append(d)
    return Correction(torch.cat(out), torch.tensor(steps), torch.cat(before), torch.cat(after))


def naive_batch_mean(current: nn.Module, historical: nn.Module, x: Tensor, y: Tensor, **k: Any) -> Correction:
    current, historical = copy.deepcopy(current).eval(), copy.deepcopy(historical).eval()
    moved, taken = x, 0
    before = after = kl(historical, current, x)
    while after.mean() > k["threshold"] and taken < k["max_steps"]:
        moved = one_step(current, moved, x, y, k["step_size"], k["radius"])
        after = kl(historical, current, moved)
        taken += 1
    return Correction(moved, torch.full((len(x),), taken), before, after)


def assert_same(got: Correction, expected: Correction) -> None:
    assert torch.equal(got.steps, expected.steps)
    assert got.steps.dtype == torch.int64
    torch.testing.assert_close(got.x, expected.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(got.before, expected.before, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got.after, expected.after, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_per_sample_is_the_naive_loop(share: float) -> None:
    current, historical = tiny_net(1), tiny_net(5)
    x, y = batch(24)
    d = memorization_discrepancy(historical, current, x)
    threshold = float(d.quantile(share)) if share else 0.0
    settings_ = {"threshold": threshold, "step_size": 0.02, "radius": 0.1, "max_steps": 8}
    got = correct(current, historical, x, y, **settings_)
    assert_same(got, naive_per_sample(current, historical, x, y, **settings_))
    if share == 1.0:
        assert torch.equal(got.x, x)  # at the threshold is not above it
    if share == 0.3:
        assert 0 in got.steps
        assert len(got.steps.unique()) > 3, "the case must exercise samples that stop at different steps"


@pytest.mark.parametrize(("quantile", "steps"), [(0.2, 8), (0.3, 3), (0.5, 1), (1.0, 0)])
def test_batch_mean_is_the_naive_loop(quantile: float, steps: int) -> None:
    current, historical = tiny_net(1), tiny_net(5)
    x, y = batch(24)
    d = memorization_discrepancy(historical, current, x)
    settings_ = {"threshold": float(d.quantile(quantile)), "step_size": 0.02, "radius": 0.1, "max_steps": 8}
    got = correct(current, historical, x, y, stopping="batch_mean", **settings_)
    assert_same(got, naive_batch_mean(current, historical, x, y, **settings_))
    assert got.steps.tolist() == [steps] * 24


def test_at_is_the_naive_loop() -> None:
    current = tiny_net(0).eval()
    x, y = batch(12)
    with torch.no_grad():
        clean = current(x).softmax(1)
    moved = x
    for _ in range(6):
        probe = moved.clone().requires_grad_()
        p = current(probe).softmax(1)
        mean_kl = (clean * (clean.log() - p.log())).sum(1).mean()
        loss = F.nll_loss(p.log(), y) + mean_kl / 4
        (gradient,) = torch.autograd.grad(loss, probe)
        moved = torch.clamp(probe.detach() - 0.02 * gradient.sign(), 0.0, 1.0)
        moved = x + (moved - x).clamp(-0.07, 0.07)
    got = adversarial_correct(current, x, y, step_size=0.02, radius=0.07, max_steps=6)
    torch.testing.assert_close(got, moved, rtol=0, atol=1e-12)
    assert not torch.equal(got, x)


def test_at_takes_the_kl_term_into_account() -> None:
    current = tiny_net(0)
    x, y = batch(64)
    at = adversarial_correct(current, x, y, step_size=0.02, radius=0.2, max_steps=10)
    ce_only = correct(current, tiny_net(1), x, y, threshold=-1.0).x
    assert not torch.equal(at, ce_only)


def test_correction_lowers_the_loss_and_hence_descends() -> None:
    current = tiny_net(0).eval()
    x, y = batch(32)
    for moved in (
        correct(current, tiny_net(1), x, y, threshold=-1.0).x,
        adversarial_correct(current, x, y, step_size=0.02, radius=0.2, max_steps=10),
    ):
        with torch.no_grad():
            assert F.cross_entropy(current(moved), y) < F.cross_entropy(current(x), y)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 9),
    threshold=st.floats(-0.1, 1.0),
    step_size=st.floats(0.0, 0.5),
    radius=st.floats(0.0, 0.6),
    max_steps=st.integers(0, 5),
    stopping=st.sampled_from(["per_sample", "batch_mean"]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_what_holds_for_every_input(
    seed: int,
    n: int,
    threshold: float,
    step_size: float,
    radius: float,
    max_steps: int,
    stopping: Any,
    dtype: torch.dtype,
) -> None:
    current, historical = tiny_net(seed, dtype), tiny_net(seed + 1, dtype)
    x, y = batch(n, seed, dtype)
    given_x = x.clone()
    got = correct(
        current,
        historical,
        x,
        y,
        threshold=threshold,
        step_size=step_size,
        radius=radius,
        max_steps=max_steps,
        stopping=stopping,
    )
    at = adversarial_correct(current, x, y, step_size=step_size, radius=radius, max_steps=max_steps)
    assert torch.equal(x, given_x)
    for moved in (got.x, at):
        assert moved.dtype == dtype
        assert moved.shape == x.shape
        assert not moved.requires_grad
        assert ((moved >= 0) & (moved <= 1)).all()
        assert ((moved - x).abs() <= radius + 1e-6).all()
    assert ((got.before >= 0) & (got.after >= 0)).all()
    assert ((got.steps >= 0) & (got.steps <= max_steps)).all()
    untouched = got.steps == 0
    assert torch.equal(got.x[untouched], x[untouched])
    assert torch.equal(got.after[untouched], got.before[untouched])
    if stopping == "per_sample":
        if max_steps > 0:
            assert torch.equal(untouched, got.before <= threshold)
        assert (got.after[got.steps < max_steps] <= threshold).all()
        assert ((got.x - x).abs().amax(dim=(1, 2, 3)) <= got.steps * step_size + 1e-6).all()
    elif n > 0 and 0 < int(got.steps[0]) < max_steps:
        assert got.after.mean() <= threshold + 1e-6


def test_only_samples_above_the_threshold_are_paid_for() -> None:
    rows = {"current": 0, "historical": 0}

    class Counting(nn.Module):
        def __init__(self, name: str, inner: nn.Module) -> None:
            super().__init__()
            self.name, self.inner = name, inner

        def forward(self, x: Tensor) -> Tensor:
            rows[self.name] += len(x)
            out: Tensor = self.inner(x)
            return out

    current, historical = Counting("current", tiny_net(0)), Counting("historical", tiny_net(1))
    x, y = batch(24)
    threshold = float(memorization_discrepancy(historical, current, x).quantile(0.75))
    rows.update(current=0, historical=0)
    got = correct(current, historical, x, y, threshold=threshold, max_steps=8)
    touched = int((got.steps > 0).sum())
    assert touched == 6
    # the look at all 24; then, per step, the historical model judges where it led; the current model's pass
    # at each point serves the judgement and the next gradient: one more per touched sample than steps
    assert rows["historical"] == 24 + int(got.steps.sum())
    assert rows["current"] == 24 + int(got.steps.sum()) + touched
    rows.update(current=0, historical=0)
    correct(current, historical, x, y, threshold=float("inf"))
    assert rows == {"current": 24, "historical": 24}


@pytest.mark.parametrize("stopping", ["per_sample", "batch_mean"])
@pytest.mark.parametrize("frozen", ["no", "yes"])
def test_models_stay_as_they_were_also_under_no_grad(stopping: Any, frozen: str) -> None:
    current, historical = tiny_net(0).train(), tiny_net(1).train()
    current[1].eval()
    for model in (current, historical):
        for p in model.parameters():
            p.requires_grad_(frozen == "no")
            p.grad = torch.full_like(p, 3.0)
    states = [copy.deepcopy(m.state_dict()) for m in (current, historical)]
    x, y = batch(10)
    with torch.no_grad():
        quiet = correct(current, historical, x, y.int(), threshold=0.01, stopping=stopping)
        at = adversarial_correct(current, x, y, step_size=0.02, radius=0.2, max_steps=3)
        assert not torch.is_grad_enabled()
    loud = correct(current, historical, x.requires_grad_(), y, threshold=0.01, stopping=stopping)
    assert torch.is_grad_enabled()
    assert quiet.steps.sum() > 0
    assert all(torch.equal(getattr(quiet, k), getattr(loud, k)) for k in ("x", "steps", "before", "after"))
    assert not (loud.x.requires_grad or at.requires_grad)
    assert x.grad is None
    for model, state in zip((current, historical), states, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        assert all(p.requires_grad == (frozen == "no") for p in model.parameters())
        assert all(p.grad is not None and bool((p.grad == 3.0).all()) for p in model.parameters())
    assert [m.training for m in current][:3] == [True, False, True]
    assert all(m.training for m in historical)


def test_a_sample_that_cannot_be_judged_is_left_alone() -> None:
    current = tiny_net(0)
    historical = tiny_net(1)
    with torch.no_grad():
        historical[-1].bias.fill_(float("nan"))
    x, y = batch(5)
    got = correct(current, historical, x, y, threshold=0.0)
    assert torch.equal(got.x, x)
    assert got.before.isnan().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"stopping": "batch"}, "stopping must be one of per_sample, per_client, batch_mean, got 'batch'"),
        ({"threshold": float("nan")}, "threshold must be"),
        ({"radius": -0.1}, "radius must be a finite number >= 0"),
        ({"radius": float("inf")}, "radius must be a finite number >= 0"),
        ({"step_size": -0.1}, "step_size must be a finite number >= 0"),
        ({"max_steps": -1}, "max_steps must be an integer >= 0"),
        ({"x": torch.full((3, 1, 8, 8), 1.5, dtype=torch.float64)}, r"x must be .* \[0, 1\]"),
        ({"x": torch.full((3, 1, 8, 8), float("nan"), dtype=torch.float64)}, r"x must be .* \[0, 1\]"),
        ({"x": torch.zeros(3, 1, 8, 8, dtype=torch.uint8)}, r"x must be .* \[0, 1\]"),
        ({"y": torch.zeros(2, dtype=torch.int64)}, r"y must be integer labels of shape \[3\]"),
        ({"y": torch.zeros(3)}, r"y must be integer labels of shape \[3\]"),
    ],
)
def test_errors_name_the_argument(wrong: dict[str, Any], message: str) -> None:
    x, y = batch(3)
    arguments = {"x": x, "y": y, "threshold": 0.1} | wrong
    with pytest.raises(ValueError, match=message):
        correct(tiny_net(0), tiny_net(1), **arguments)
    if not wrong.keys() & {"stopping", "threshold"}:
        arguments.pop("threshold")
        with pytest.raises(ValueError, match=message):
            adversarial_correct(tiny_net(0), **arguments)
