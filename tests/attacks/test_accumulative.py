"""Eqs (2) and (3) against literal double backward and central differences."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.attacks import gradients
from fedmd.attacks.accumulative import (
    accumulative_gradient,
    accumulative_target,
    craft_accumulative,
    steering_direction,
)
from fedmd.attacks.gradients import LiveGradient, gradient

VARIANTS = ["normal", "second", "reg"]


def tiny_net(
    seed: int, activation: type[nn.Module] = nn.ReLU, norm: str = "batch", dtype: torch.dtype = torch.float64
) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4) if norm == "batch" else nn.Identity(),
        activation(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6) if norm == "batch" else nn.Identity(),
        activation(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(96, 4),
    )
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
            nn.init.normal_(module.bias, std=0.2)
    return net.to(dtype)


def batch(n: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64).to(dtype)
    return x, torch.randint(4, (n,), generator=generator)


def literal_units(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    """ĝ_l(x) with its whole graph."""
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), create_graph=True)
    return [g / g.norm() for g in grads]


def alignment(model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> Tensor:
    """Σ_j ⟨ĝ_j(x), ĝ_j(x_val)⟩ with its whole graph."""
    pairs = zip(literal_units(model, x, y), literal_units(model, x_val, y_val), strict=True)
    return torch.stack([(u * v).sum() for u, v in pairs]).sum()


def literal_direction(model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> list[Tensor]:
    model = copy.deepcopy(model).eval().requires_grad_(True)
    return list(torch.autograd.grad(alignment(model, x, y, x_val, y_val), list(model.parameters())))


def literal_gradient(
    model: nn.Module, at: Tensor, clean: Tensor, y: Tensor, h: list[Tensor], gamma: float, variant: str
) -> Tensor:
    """∇_x' of (3) by differentiating through everything, the clean gradient held fixed."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    fixed = [u.detach() for u in literal_units(model, clean, y)]
    probe = at.clone().requires_grad_()
    objective = torch.zeros((), dtype=at.dtype)
    for u, c, h_l in zip(literal_units(model, probe, y), fixed, h, strict=True):
        if variant in ("normal", "reg"):
            objective = objective + gamma * (u * c).sum()
        if variant in ("second", "reg"):
            objective = objective + (u * h_l / h_l.norm()).sum()
    return torch.autograd.grad(objective, probe)[0]


def distance(got: Any, expected: Any) -> float:
    flat = [torch.cat([t.flatten() for t in ts]) for ts in (got, expected)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_direction_is_literal_autograd(norm: str, seed: int) -> None:
    model = tiny_net(seed, norm=norm)
    data = (*batch(7, seed), *batch(11, seed + 50))
    h, expected = steering_direction(model, *data), literal_direction(model, *data)
    assert [v.shape for v in h] == [p.shape for p in model.parameters()]
    assert not any(v.requires_grad for v in h)
    for got, want in zip(h, expected, strict=True):
        assert distance([got], [want]) < 1e-6


def test_direction_is_the_slope_by_central_differences() -> None:
    model = tiny_net(3, activation=nn.Softplus).eval()
    data = (*batch(5, 3), *batch(6, 53))
    h = steering_direction(model, *data)
    generator = torch.Generator().manual_seed(0)
    for index, step in [(i, 1e-5) for i in range(len(h))]:
        v = torch.randn(h[index].shape, generator=generator, dtype=torch.float64)
        values = []
        for sign in (1, -1):
            moved = copy.deepcopy(model)
            with torch.no_grad():
                list(moved.parameters())[index].add_(sign * step * v)
            values.append(float(alignment(moved, *data).detach()))
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float((h[index] * v).sum()), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_the_literal_one(norm: str, variant: Any) -> None:
    model = tiny_net(4, norm=norm)
    x, y = batch(8, 4)
    data = (*batch(7, 5), *batch(11, 55))
    h, expected_h = steering_direction(model, *data), literal_direction(model, *data)
    target = accumulative_target(gradient(model, x, y), h, gamma=0.7, variant=variant)
    away = (x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)).clamp(0, 1)
    for at in (x, away):
        got = accumulative_gradient(model, at, y, target)
        expected = literal_gradient(model, at, x, y, expected_h, 0.7, variant)
        if variant == "normal" and at is x:
            assert got.abs().max() < 1e-12  # the clean batch maximises the γ term
            assert expected.abs().max() < 1e-12
        else:
            assert float(expected.norm()) > 1e-3
            assert distance([got], [expected]) < 1e-6


@pytest.mark.parametrize("variant", ["second", "reg"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_crafted_pixels_in_float32_are_the_literal_ones(variant: Any, steps: int) -> None:
    model = tiny_net(6, dtype=torch.float32)
    x, y = batch(64, 6, torch.float32)
    data = (*batch(40, 7, torch.float32), *batch(80, 57, torch.float32))
    radius, moved, h = 0.2, x, literal_direction(model, *data)
    for _ in range(steps):
        moved = moved + 2 * radius / steps * literal_gradient(model, moved, x, y, h, 1.0, variant).sign()
        moved = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 1)
    direction = steering_direction(model, *data)
    got = craft_accumulative(model, x, y, direction, radius=radius, steps=steps, variant=variant)
    assert got.dtype == torch.float32
    assert float(((got - moved).abs() < 1e-6).float().mean()) >= 0.999
    assert float(((got - x).abs() > 0.05).float().mean()) > 0.25  # it did move


def test_the_objective_goes_up_and_a_step_on_the_batch_misaligns_the_trigger() -> None:
    model = tiny_net(8, activation=nn.Softplus).eval()
    x, y = batch(30, 8)
    data = (*batch(20, 9), *batch(30, 59))
    h = steering_direction(model, *data)
    moved = craft_accumulative(model, x, y, h, radius=0.2, steps=2, variant="second")

    def pull_along_h(at: Tensor) -> float:
        units = literal_units(model, at, y)
        return float(sum((u * v / v.norm()).sum() for u, v in zip(units, h, strict=True)).detach())

    def after_a_step_on(at: Tensor) -> float:
        stepped = copy.deepcopy(model)
        grads = torch.autograd.grad(F.cross_entropy(stepped(at), y), list(stepped.parameters()))
        with torch.no_grad():
            for p, g in zip(stepped.parameters(), grads, strict=True):
                p.sub_(1e-3 * g / g.norm())
        return float(alignment(stepped, *data).detach())

    assert pull_along_h(moved) > pull_along_h(x) + 0.01
    assert after_a_step_on(moved) < after_a_step_on(x)


def test_direction_is_normalised_inside_and_gamma_weighs_the_clean_term() -> None:
    model = tiny_net(10)
    x, y = batch(6, 10)
    h = steering_direction(model, *batch(5, 11), *batch(5, 61))
    scaled = tuple((i + 1) * 7.0 * v for i, v in enumerate(h))
    first = craft_accumulative(model, x, y, h, radius=0.1, steps=2)
    assert torch.equal(first, craft_accumulative(model, x, y, scaled, radius=0.1, steps=2))
    second = accumulative_target(gradient(model, x, y), h, variant="second")
    normal = accumulative_target(gradient(model, x, y), h, variant="normal")
    reg = accumulative_target(gradient(model, x, y), h, gamma=3.0)
    assert all(float(v.norm()) == pytest.approx(1.0) for v in (*second, *normal))
    for r, n, s in zip(reg, normal, second, strict=True):
        torch.testing.assert_close(r, 3.0 * n + s)
    none = accumulative_target(gradient(model, x, y), h, gamma=0.0)
    assert all(torch.equal(a, b) for a, b in zip(none, second, strict=True))


def test_tensors_without_gradient_give_no_nan() -> None:
    model = tiny_net(12)
    with torch.no_grad():
        model[5].bias.fill_(-100.0)  # the second ReLU never fires: everything before the head is dead
    x, y = batch(6, 12)
    h = steering_direction(model, *batch(5, 13), *batch(5, 63))
    assert all(v.isfinite().all() for v in h)
    assert not any(v.any() for v in h[:8])
    for variant in VARIANTS:
        moved = craft_accumulative(model, x, y, h, radius=0.2, steps=2, variant=variant)  # type: ignore[arg-type]
        assert torch.equal(moved, x)  # nothing in x reaches the loss


@pytest.mark.parametrize("frozen", ["no", "yes"])
def test_the_model_stays_as_it_was_also_under_no_grad(frozen: str) -> None:
    model = tiny_net(14).train()
    model[1].eval()
    for p in model.parameters():
        p.requires_grad_(frozen == "no")
        p.grad = torch.full_like(p, 3.0)
    state, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    (x, y), (x_tri, y_tri), (x_val, y_val) = batch(6, 14), batch(5, 15), batch(7, 65)
    with torch.no_grad():
        h = steering_direction(model, x_tri, y_tri.int(), x_val, y_val.to(torch.uint8))
        quiet = craft_accumulative(model, x, y.int(), h, radius=0.2, steps=2)
    again = steering_direction(model, x_tri.requires_grad_(), y_tri, x_val.requires_grad_(), y_val)
    loud = craft_accumulative(model, x.requires_grad_(), y, again, radius=0.2, steps=2)
    assert all(torch.equal(a, b) for a, b in zip(h, again, strict=True))
    assert torch.equal(quiet, loud)
    assert not loud.requires_grad
    assert all(t.grad is None for t in (x, x_tri, x_val))
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(p.requires_grad == (frozen == "no") for p in model.parameters())
    assert all(p.grad is not None and bool((p.grad == 3.0).all()) for p in model.parameters())


@pytest.mark.parametrize("kept", [0, 5, 8, 100])
def test_parts_of_a_batch_are_the_batch(monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    """In parts of 4 (the last is smaller), all graphs, some or none kept: the same up to the order of summation."""
    model = tiny_net(18)
    x, y = batch(7, 18)
    data = (*batch(6, 19), *batch(11, 69))
    h, expected = steering_direction(model, *data), literal_direction(model, *data)
    whole = craft_accumulative(model, x, y, h, radius=0.2, steps=2)
    monkeypatch.setattr(gradients, "PART", 4)
    monkeypatch.setattr(gradients, "KEPT", kept)
    sizes: list[int] = []
    model.register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    in_parts = steering_direction(model, *data)
    assert max(sizes) == 4
    assert sorted(sizes) == sorted([4, 2, 4, 4, 3] + {0: [4, 2, 4, 4, 3], 5: [2, 4, 3], 8: [3], 100: []}[kept])
    for got, want in zip(in_parts, expected, strict=True):
        assert distance([got], [want]) < 1e-9
    torch.testing.assert_close(craft_accumulative(model, x, y, in_parts, radius=0.2, steps=2), whole)
    assert torch.equal(gradient(model, x, y)[0], LiveGradient(model, x, y).value[0])


def test_a_model_whose_samples_depend_on_each_other_is_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_net(20)
    model[0] = nn.Conv2d(1, 4, 3, padding=1, bias=False).to(torch.float64)
    model[1] = nn.BatchNorm2d(4, track_running_stats=False).to(torch.float64)
    data = (*batch(6, 21), *batch(11, 71))
    monkeypatch.setattr(gradients, "PART", 4)
    for got, want in zip(steering_direction(model, *data), literal_direction(model, *data), strict=True):
        assert distance([got], [want]) < 1e-6


def test_no_forward_pass_is_wasted() -> None:
    model, sizes = tiny_net(16), []
    model.register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    x, y = batch(3, 16)
    h = steering_direction(model, *batch(4, 17), *batch(5, 67))
    assert sizes == [4, 5]
    sizes.clear()
    craft_accumulative(model, x, y, h, radius=0.2, steps=2)
    assert sizes == [3, 3]  # one a step: the clean gradient is the first step's
    sizes.clear()
    craft_accumulative(model, x, y, h, radius=0.2, steps=2, variant="second")
    assert sizes == [3, 3]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 4),
    radius=st.floats(0.0, 0.6),
    steps=st.integers(1, 3),
    variant=st.sampled_from(VARIANTS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_samples_stay_in_the_ball_and_in_range(
    seed: int, n: int, radius: float, steps: int, variant: Any, dtype: torch.dtype
) -> None:
    model = tiny_net(seed, dtype=dtype)
    x, y = batch(n, seed, dtype)
    given_x = x.clone()
    h = steering_direction(model, *batch(3, seed + 1, dtype), *batch(3, seed + 2, dtype))
    moved = craft_accumulative(model, x, y, h, radius=radius, steps=steps, variant=variant)
    assert torch.equal(x, given_x)
    assert moved.dtype == dtype
    assert ((moved >= 0) & (moved <= 1)).all()
    assert ((moved - x).abs() <= radius + 1e-6).all()


def test_errors_name_the_argument() -> None:
    model = tiny_net(0)
    x, y = batch(3, 0)
    h = steering_direction(model, x, y, *batch(3, 1))
    wrong: Any = "regular"
    with pytest.raises(ValueError, match="variant must be one of normal, second, reg, got 'regular'"):
        craft_accumulative(model, x, y, h, radius=0.1, steps=2, variant=wrong)
    with pytest.raises(ValueError, match="direction must hold one tensor per model parameter"):
        craft_accumulative(model, x, y, h[:-1], radius=0.1, steps=2)
    with pytest.raises(ValueError, match="radius must be a finite number >= 0"):
        craft_accumulative(model, x, y, h, radius=-0.1, steps=2)
    with pytest.raises(ValueError, match=r"x must be .* \[0, 1\]"):
        craft_accumulative(model, x + 1, y, h, radius=0.1, steps=2)


def test_bf16_agrees_on_most_pixels_and_keeps_to_the_ball() -> None:
    model = tiny_net(22, dtype=torch.float32)
    (x, y), data = batch(64, 22, torch.float32), (*batch(40, 23, torch.float32), *batch(80, 73, torch.float32))
    exact = craft_accumulative(model, x, y, steering_direction(model, *data), radius=0.2, steps=2)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = craft_accumulative(model, x, y, steering_direction(model, *data), radius=0.2, steps=2)
    assert rounded.dtype == torch.float32 and float((rounded - x).abs().max()) <= 0.2 + 1e-6
    assert not torch.equal(rounded, exact)
    assert float(((rounded - exact).abs() < 1e-6).float().mean()) > 0.6
