"""Eq (1) against the literal double-backward formulation, and the PGD loop it runs in."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.attacks.gradients import folded, gradient, normalised, sign_pgd
from fedmd.attacks.trigger import craft_trigger, trigger_gradient


def tiny_net(seed: int, norm: str = "batch", dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4) if norm == "batch" else nn.Identity(),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6) if norm == "batch" else nn.Identity(),
        nn.ReLU(),
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


def literal_gradient(model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> Tensor:
    """∇_x S by differentiating through everything, as eq (1) is written."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    validation = [v.detach() for v in literal_units(model, x_val, y_val)]
    probe = x.clone().requires_grad_()
    objective = sum((u * v).sum() for u, v in zip(literal_units(model, probe, y), validation, strict=True))
    return torch.autograd.grad(objective, probe)[0]


def cosine(model: nn.Module, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor) -> float:
    model = copy.deepcopy(model).eval()
    pairs = zip(literal_units(model, x, y), literal_units(model, x_val, y_val), strict=True)
    return float(sum((u * v).sum() for u, v in pairs).detach())


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradient_is_the_literal_one(norm: str, seed: int) -> None:
    model = tiny_net(seed, norm)
    (x, y), (x_val, y_val) = batch(7, seed), batch(11, seed + 50)
    direction = normalised(gradient(model, x_val, y_val))
    got = trigger_gradient(model, x, y, direction)
    expected = literal_gradient(model, x, y, x_val, y_val)
    assert float(expected.norm()) > 1e-3
    assert float((got - expected).norm() / expected.norm()) < 1e-6
    assert torch.equal(got.sign(), expected.sign())


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_crafted_pixels_in_float32_are_the_literal_ones(steps: int) -> None:
    model = tiny_net(3, dtype=torch.float32)
    (x, y), (x_val, y_val) = batch(64, 3, torch.float32), batch(80, 53, torch.float32)
    radius, moved = 0.2, x
    for _ in range(steps):
        moved = moved - 2 * radius / steps * literal_gradient(model, moved, y, x_val, y_val).sign()
        moved = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 1)
    got = craft_trigger(model, x, y, x_val, y_val, radius=radius, steps=steps)
    assert got.dtype == torch.float32
    assert float(((got - moved).abs() < 1e-6).float().mean()) >= 0.999
    assert float(((got - x).abs() > 0.05).float().mean()) > 0.25  # it did move


def test_the_objective_goes_down() -> None:
    model = tiny_net(4)
    (x, y), (x_val, y_val) = batch(20, 4), batch(30, 54)
    moved = craft_trigger(model, x, y, x_val, y_val, radius=0.1, steps=4)
    assert cosine(model, moved, y, x_val, y_val) < cosine(model, x, y, x_val, y_val) - 0.05


def test_gradient_per_tensor_of_the_batch_mean_in_parameter_order() -> None:
    model = tiny_net(5)
    x, y = batch(9, 5)
    twin = copy.deepcopy(model).eval()
    F.cross_entropy(twin(x), y).backward()
    for got, p in zip(gradient(model, x, y), twin.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad)
        assert not got.requires_grad
    assert all(float(u.norm()) == pytest.approx(1.0) for u in normalised(gradient(model, x, y)))


def test_folding_is_orthogonal_to_the_gradient_and_drops_dead_tensors() -> None:
    torch.manual_seed(0)
    g = (torch.randn(3, 4), torch.zeros(5), torch.randn(2) * 1e-12)
    t = (torch.randn(3, 4), torch.randn(5), torch.randn(2))
    s = folded(g, t)
    assert abs(float((s[0] * g[0]).sum())) < 1e-5
    assert not s[1].any()
    assert not s[2].any()  # rounding errors beside a healthy tensor
    tiny = tuple(v * 1e-12 for v in g[:1])  # small all over, hence meaningful
    torch.testing.assert_close(folded(tiny, t[:1])[0], s[0] * 1e12, rtol=1e-4, atol=1e6)
    assert [float(v.norm()) for v in normalised(g)] == pytest.approx([1.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="targets must hold one tensor per model parameter"):
        folded(g, t[:2])


class PartlyDead(nn.Module):
    """A branch whose ReLU never fires (gradient exactly zero) and a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.dead, self.unused = nn.Linear(64, 6), nn.Linear(64, 6), nn.Linear(3, 3)
        nn.init.constant_(self.dead.bias, -100.0)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        out: Tensor = self.head(self.body(flat).tanh() + self.dead(flat).relu())
        return out


def test_tensors_without_gradient_contribute_zero() -> None:
    model = PartlyDead().double()
    (x, y), (x_val, y_val) = batch(6, 0), batch(6, 1)
    direction = normalised(gradient(model, x_val, y_val))
    got = trigger_gradient(model, x, y, direction)
    assert got.isfinite().all()
    assert got.any()
    # the same as the model without those parts
    alive = nn.Sequential(nn.Flatten(), model.body, nn.Tanh(), model.head)
    torch.testing.assert_close(got, literal_gradient(alive, x, y, x_val, y_val))
    assert craft_trigger(model, x, y, x_val, y_val, radius=0.1, steps=2).isfinite().all()


def test_a_model_dead_all_over_leaves_the_samples_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU())
    nn.init.constant_(model[1].bias, -100.0)
    x, y = batch(5, 0, torch.float32)
    assert torch.equal(craft_trigger(model, x, y, x, y, radius=0.2, steps=2), x)


@pytest.mark.parametrize("frozen", ["no", "yes"])
def test_the_model_stays_as_it_was_also_under_no_grad(frozen: str) -> None:
    model = tiny_net(6).train()
    model[1].eval()
    for p in model.parameters():
        p.requires_grad_(frozen == "no")
        p.grad = torch.full_like(p, 3.0)
    state, flags = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    (x, y), (x_val, y_val) = batch(6, 6), batch(8, 56)
    with torch.no_grad():
        quiet = craft_trigger(model, x, y.int(), x_val, y_val.to(torch.uint8), radius=0.2, steps=2)
    loud = craft_trigger(model, x.requires_grad_(), y, x_val, y_val, radius=0.2, steps=2)
    assert torch.equal(quiet, loud)
    assert not loud.requires_grad
    assert x.grad is None
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in model.modules()] == flags
    assert all(p.requires_grad == (frozen == "no") for p in model.parameters())
    assert all(p.grad is not None and bool((p.grad == 3.0).all()) for p in model.parameters())


def test_the_validation_gradient_is_taken_once() -> None:
    model, sizes = tiny_net(7), []
    model.register_forward_hook(lambda _module, args, _out: sizes.append(len(args[0])))
    (x, y), (x_val, y_val) = batch(3, 7), batch(5, 57)
    craft_trigger(model, x, y, x_val, y_val, radius=0.2, steps=4)
    assert sizes == [5, 3, 3, 3, 3]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(0, 5),
    radius=st.floats(0.0, 1.5),
    steps=st.integers(1, 5),
    goal=st.sampled_from(["ascend", "descend"]),
)
def test_pgd_stays_in_the_ball_and_moves_the_right_way(seed: int, n: int, radius: float, steps: int, goal: Any) -> None:
    x, _ = batch(n, seed)
    slope = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
    moved = sign_pgd(x, lambda _x: slope, goal=goal, radius=radius, steps=steps)
    assert ((moved >= 0) & (moved <= 1)).all()
    assert ((moved - x).abs() <= radius + 1e-12).all()
    # against a constant slope 2ε of travel end in the corner of the ball
    sign = slope.sign() if goal == "ascend" else -slope.sign()
    torch.testing.assert_close(moved, (x + radius * sign).clamp(0, 1))


def test_pgd_steps_are_two_radii_over_k_from_the_clean_sample() -> None:
    seen: list[float] = []

    def flat(x: Tensor) -> Tensor:
        seen.append(float(x))
        return torch.ones_like(x)

    sign_pgd(torch.tensor([0.5]), flat, goal="ascend", radius=0.2, steps=4)
    assert seen == pytest.approx([0.5, 0.6, 0.7, 0.7])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"goal": "up"}, "goal must be one of ascend, descend, got 'up'"),
        ({"radius": -1.0}, "radius must be a finite number >= 0"),
        ({"radius": float("nan")}, "radius must be a finite number >= 0"),
        ({"steps": 0}, "steps must be an integer >= 1"),
        ({"x": torch.tensor([2.0])}, r"x must be .* \[0, 1\]"),
        ({"x": torch.tensor([1])}, r"x must be .* \[0, 1\]"),
    ],
)
def test_errors_name_the_argument(wrong: dict[str, Any], message: str) -> None:
    arguments = {"x": torch.tensor([0.5]), "goal": "ascend", "radius": 0.1, "steps": 2} | wrong
    with pytest.raises(ValueError, match=message):
        sign_pgd(pixel_gradient=torch.ones_like, **arguments)
