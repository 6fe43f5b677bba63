"""Eq (4) against literal double backward and central differences; crafting leaves no trace in the model."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.attacks.accumulative_update import (
    GRADIENT_CLIP,
    UpdateTrigger,
    accumulative_push,
    bounded,
    trigger_push,
    unnoticed,
)

BATCH_NORM = [True, False]


def tiny_net(seed: int, *, batch_norm: bool, dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3) if batch_norm else nn.Identity(),
        nn.Tanh(),
        nn.Dropout(dropout),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(12, 4),
    ).double()
    for module in net:
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.1, 0.5)
            nn.init.normal_(module.bias, std=0.2)
    return net


def batch(n: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.randint(4, (n,), generator=generator)


TRIGGER, VALIDATION = batch(6, 1), batch(9, 2)


def pushed_by(*args: object, **kwargs: object) -> Tensor:
    return accumulative_push(*args, **kwargs)[0]  # type: ignore[arg-type]


def literal_gradient(model: nn.Module, x: Tensor, y: Tensor, *, graph: bool = False) -> Tensor:
    """The whole flattened gradient in the model's own mode; a training model's running statistics move."""
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), create_graph=graph)
    return torch.cat([g.reshape(-1) for g in grads])


def literal_similarity(model: nn.Module, *, graph: bool = False) -> Tensor:
    """S = cos(−g_tri, g_val)."""
    return F.cosine_similarity(
        -literal_gradient(model, *TRIGGER, graph=graph), literal_gradient(model, *VALIDATION, graph=graph), dim=0
    )


def whole_gradient(model: nn.Module) -> Tensor:
    """∇_θ S by differentiating through both gradients."""
    similarity = literal_similarity(model, graph=True)
    return torch.cat(
        [g.reshape(-1) for g in torch.autograd.grad(similarity, list(model.parameters()), materialize_grads=True)]
    )


def training_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train().requires_grad_(True)


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_the_push_is_the_literal_double_backward(batch_norm: bool) -> None:
    net = tiny_net(0, batch_norm=batch_norm)
    expected = whole_gradient(training_copy(net))
    assert 0 < float(expected.norm()) < GRADIENT_CLIP
    assert torch.allclose(pushed_by(net, *TRIGGER, *VALIDATION), -0.08 * expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_the_push_is_the_central_difference(batch_norm: bool) -> None:
    net = tiny_net(1, batch_norm=batch_norm)
    push = pushed_by(net, *TRIGGER, *VALIDATION, rate=1.0)
    start, step = nn.utils.parameters_to_vector(net.parameters()).detach(), 1e-5
    for seed in range(4):
        direction = torch.randn(push.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            moved = training_copy(net)
            nn.utils.vector_to_parameters(start + sign * step * direction, moved.parameters())
            sides.append(float(literal_similarity(moved)))
        assert float(push @ direction) == pytest.approx(-(sides[0] - sides[1]) / (2 * step), rel=1e-5, abs=1e-8)


def test_one_step_along_the_push_makes_the_trigger_bite() -> None:
    """S falls, and one ascent step on the trigger then raises the validation loss by more than before."""
    net = tiny_net(2, batch_norm=True)
    pushed = training_copy(net)
    start = nn.utils.parameters_to_vector(net.parameters()).detach()
    nn.utils.vector_to_parameters(start + pushed_by(net, *TRIGGER, *VALIDATION, rate=0.5), pushed.parameters())
    assert float(literal_similarity(pushed)) < float(literal_similarity(training_copy(net)))
    assert rise(pushed) > rise(training_copy(net))


def rise(model: nn.Module) -> float:
    """Validation loss after a small trigger step minus before, per unit of step length."""
    before = F.cross_entropy(model(VALIDATION[0]), VALIDATION[1]).item()
    push = trigger_push(model, *TRIGGER)
    moved = copy.deepcopy(model)
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    nn.utils.vector_to_parameters(start + 1e-3 * push / push.norm(), moved.parameters())
    return F.cross_entropy(moved(VALIDATION[0]), VALIDATION[1]).item() - before


def test_a_steep_similarity_is_clipped_at_ten_before_the_rate() -> None:
    """Without biases the gradients of two layers shrink with the weights while S keeps its size: ∇S grows as 1/s."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 5, bias=False), nn.Tanh(), nn.Linear(5, 4, bias=False)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1e-2)
    expected = whole_gradient(training_copy(net))
    assert float(expected.norm()) > GRADIENT_CLIP
    push = pushed_by(net, *TRIGGER, *VALIDATION, rate=0.5)
    assert torch.allclose(push, -0.5 * 10.0 * expected / expected.norm(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("batch_norm", BATCH_NORM)
def test_the_trigger_push_is_the_ascent_gradient(batch_norm: bool) -> None:
    net = tiny_net(4, batch_norm=batch_norm)
    expected = literal_gradient(training_copy(net), *TRIGGER)
    assert torch.allclose(trigger_push(net, *TRIGGER), 0.01 * expected, rtol=1e-12)
    assert torch.allclose(trigger_push(net, *TRIGGER, rate=3.0), 3 * expected, rtol=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_as_it_was_and_its_mode_does_not_matter(training: bool) -> None:
    net = tiny_net(5, batch_norm=True, dropout=0.5)
    net.train(training)
    net[0].requires_grad_(False)
    before, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    push = pushed_by(net, *TRIGGER, *VALIDATION)
    ascent = trigger_push(net, *TRIGGER)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert [m.training for m in net.modules()] == [training] * len(list(net.modules()))
    assert [p.requires_grad for p in net[0].parameters()] == [False, False]
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not push.requires_grad and not ascent.requires_grad
    other = copy.deepcopy(net).train(not training).requires_grad_(True)
    assert torch.equal(pushed_by(other, *TRIGGER, *VALIDATION), push)
    assert torch.equal(trigger_push(other, *TRIGGER), ascent)


def test_inside_no_grad_the_push_is_the_same() -> None:
    net = tiny_net(6, batch_norm=True)
    with torch.no_grad():
        inside = pushed_by(net, *TRIGGER, *VALIDATION)
    assert torch.equal(inside, pushed_by(net, *TRIGGER, *VALIDATION))


def test_a_single_sample_uses_the_running_statistics() -> None:
    net = tiny_net(7, batch_norm=True)
    one = (TRIGGER[0][:1], TRIGGER[1][:1])
    expected = literal_gradient(copy.deepcopy(net).eval(), *one)
    assert torch.allclose(trigger_push(net, *one, rate=1.0), expected, rtol=1e-12)


def test_an_unused_parameter_gets_zero_and_a_flat_gradient_no_push() -> None:
    net = tiny_net(8, batch_norm=False)
    net.register_parameter("spare", nn.Parameter(torch.ones(3, dtype=torch.float64)))
    push = pushed_by(net, *TRIGGER, *VALIDATION)
    named = [name for name, _ in net.named_parameters()]
    at = sum(p.numel() for name, p in list(net.named_parameters())[: named.index("spare")])
    assert torch.equal(push[at : at + 3], torch.zeros(3, dtype=torch.float64))
    assert float(push.norm()) > 0
    same = pushed_by(net, *TRIGGER, *TRIGGER)  # cos is at its maximum, 1
    assert float(same.norm()) < 1e-9


def test_bounded_shortens_only_what_is_too_long() -> None:
    update = torch.tensor([3.0, 4.0])
    assert bounded(update, 5.0) is update
    assert bounded(update, 2.5).tolist() == pytest.approx([1.5, 2.0])
    assert bounded(update, 0.0).tolist() == [0.0, 0.0]
    assert bounded(torch.zeros(2), 0.0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("trigger", ["clean", "reversed"])
def test_either_trigger_lowers_its_own_similarity_and_reports_it(trigger: UpdateTrigger) -> None:
    net = tiny_net(9, batch_norm=True)
    sign = 1 if trigger == "reversed" else -1
    push, similarity = accumulative_push(net, *TRIGGER, *VALIDATION, rate=0.3, trigger=trigger)
    literal = training_copy(net)
    assert torch.allclose(push, -0.3 * sign * whole_gradient(literal), rtol=1e-9, atol=1e-13)
    assert similarity == pytest.approx(sign * float(literal_similarity(training_copy(net))), rel=1e-9)


def test_a_push_is_halved_until_nobody_notices() -> None:
    push = torch.tensor([8.0, 0.0])
    assert torch.equal(unnoticed(push, lambda v: float(v[0]), 8.0), push)
    assert torch.equal(unnoticed(push, lambda v: float(v[0]), 3.0), push / 4)
    assert torch.equal(unnoticed(push, lambda v: float(v[0]), 0.1), torch.zeros(2))
    assert torch.equal(unnoticed(push, lambda v: float("nan"), 1.0), torch.zeros(2))
