"""Eq (11) for streamed samples against loops, central differences, literal formulations, the server's own numbers."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf
from torch import Tensor, nn
from torch.nn import functional as F

import fedmd
from fedmd.attacks import adaptive_samples, known_scores
from fedmd.attacks.accumulative import craft_accumulative, steering_direction
from fedmd.attacks.adaptive_samples import Restraint, historical_state, score_rise, scores
from fedmd.attacks.coalition import Coalition, coalition_of
from fedmd.attacks.known_scores import Combined, Discrepancy, Score, require_features, smooth_log_p
from fedmd.attacks.schedule import malicious_clients
from fedmd.attacks.trigger import craft_trigger
from fedmd.config import ConfigError, RunConfig
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.defense.history import Ema, History, Lag, Snapshot
from fedmd.defense.samples.detectors.baselines import Mahalanobis
from fedmd.defense.samples.outputs import TrustedSet, compute_outputs
from fedmd.flower.client.app import app
from fedmd.models import model_for
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.types import RoundReport
from tests.golden.federate import federate
from tests.golden.runs import RUNS

Make = Callable[..., RunConfig]


def net(seed: int, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Smooth, with batch norm: central differences mean something."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(144, 4)
    )
    nn.init.normal_(model[1].running_mean, std=0.2)
    nn.init.uniform_(model[1].running_var, 0.1, 0.5)
    return model.to(dtype)


def batch(n: int, seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(4, (n,), generator=generator)


def naive(historical: nn.Module, current: nn.Module, x: Tensor) -> list[float]:
    """Σ_k p_h (log p_h − log p_t) of every sample, by loops."""
    models = (copy.deepcopy(historical).eval(), copy.deepcopy(current).eval())
    found = []
    for h, t in zip(*(model(x).tolist() for model in models), strict=True):
        p, q = ([math.exp(a) / sum(map(math.exp, row)) for a in row] for row in (h, t))
        found.append(sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True)))
    return found


def literal_d(historical: nn.Module, current: nn.Module, x: Tensor) -> Tensor:
    """D [N] with its whole graph."""
    p, q = (copy.deepcopy(model).eval()(x).softmax(1) for model in (historical, current))
    return (p * (p / q).log()).sum(1)


def literal_c(historical: nn.Module, current: nn.Module, own: tuple[Tensor, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """C [N] with its whole graph; what the own samples score is refitted without each of them, one by one."""
    features = copy.deepcopy(current).eval()[:-1]
    known, labels = features(own[0]).detach(), own[1]

    def mean(label: int, kept: list[int]) -> Tensor:
        peers = [j for j in kept if labels[j] == label]
        return known[peers or kept].mean(0)

    everybody = list(range(len(known)))
    residuals = known - torch.stack([mean(int(label), everybody) for label in labels])
    _, shrinkage = ledoit_wolf(residuals.numpy(), assume_centered=True)
    target = shrinkage * residuals.square().sum() / residuals.numel() * torch.eye(known.shape[1])

    def distance(f: Tensor, label: int, kept: list[int]) -> Tensor:
        rest = torch.stack([known[j] - mean(int(labels[j]), kept) for j in kept])
        precision = torch.linalg.inv((1 - shrinkage) * rest.T @ rest / len(known) + target)
        away = f - mean(label, kept)
        return (away @ precision @ away).sqrt()

    def without(i: int) -> list[int]:
        return [j for j in everybody if j != i]

    alone = torch.stack([distance(known[i], int(labels[i]), without(i)) for i in everybody])
    far = torch.stack([distance(f, int(label), everybody) for f, label in zip(features(x), y, strict=True)])
    total = torch.zeros(len(x), dtype=x.dtype)
    for scores_, mine in ((literal_d(historical, current, x), literal_d(historical, current, own[0])), (far, alone)):
        width = mine.detach().std() / len(mine) ** 0.2
        total = total - ((mine.detach() - scores_[:, None]) / width).sigmoid().mean(1).log()
    return total


# -- the scores and their gradients ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [3, 100])
def test_the_discrepancy_is_the_naive_loops_and_its_rise_the_central_difference(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    monkeypatch.setattr(adaptive_samples, "PART", part)
    (x, y), historical, current = batch(7, 0), net(1).train(), net(2).train()
    state = copy.deepcopy(current.state_dict())
    values, rise = score_rise(Discrepancy(historical, current), x, y)
    assert values.tolist() == pytest.approx(naive(historical, current, x)) and min(values) > 1e-3
    assert torch.equal(values, scores(Discrepancy(historical, current), x, y))
    assert not (values.requires_grad or rise.requires_grad or x.requires_grad)
    for seed in range(3):
        direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
        sides = [sum(naive(historical, current, x + sign * 1e-5 * direction)) / 7 for sign in (1, -1)]
        assert float((rise * direction).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)
    assert current.training and historical.training and all(p.grad is None for p in current.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in current.state_dict().items())


def test_who_knows_the_limit_turns_those_above_it_and_no_others() -> None:
    (x, y), slope = batch(5, 3), torch.randn(5, 1, 6, 6, dtype=torch.float64)
    score = Discrepancy(net(1), net(2))
    values, rise = score_rise(score, x, y)
    limit = float(values.median())
    got = Restraint(score, 0.0, limit).uphill(slope, x, y)
    for i, value in enumerate(values.tolist()):
        assert torch.equal(got[i], -rise[i] if value > limit else slope[i])
    assert sum(float(value) > limit for value in values) == 2
    torch.testing.assert_close(Restraint(score, 3.0).uphill(slope, x, y), slope - 3 * rise)


@settings(max_examples=25)
@given(seed=st.integers(0, 1000), prices=st.lists(st.floats(0, 1e4), min_size=2, max_size=4))
def test_the_higher_the_price_the_less_a_step_raises_the_discrepancy(seed: int, prices: list[float]) -> None:
    """b · sign(a − μ b) falls with μ in every coordinate; so does D after one short step, to first order."""
    (x, y), score = batch(3, seed), Discrepancy(net(seed + 1), net(seed + 2))
    slope = 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    rise = score_rise(score, x, y)[1]
    steps = [Restraint(score, price).uphill(slope, x, y).sign() for price in sorted(prices)]
    raised = [float((rise * step).sum()) for step in steps]
    assert all(a >= b - 1e-12 for a, b in pairwise(raised))
    after = [float(scores(score, x + 1e-6 * step, y).mean()) for step in steps]
    assert all(a >= b - 1e-9 for a, b in pairwise(after))


def test_a_smooth_p_value_is_the_naive_loops_and_with_a_narrow_kernel_the_share_of_larger_ones() -> None:
    own, found = torch.tensor([1.0, 2.0, 4.0, 4.5], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64)
    mean = 11.5 / 4
    width = math.sqrt(sum((each - mean) ** 2 for each in own.tolist()) / 3) / 4**0.2
    for score, log_p in zip(found.tolist(), smooth_log_p(found, own).tolist(), strict=True):
        kernel = [1 / (1 + math.exp((score - each) / width)) for each in own.tolist()]
        assert log_p == pytest.approx(math.log(sum(kernel) / 4))
    many = torch.arange(10_000, dtype=torch.float64)  # h is 457 of them
    assert smooth_log_p(torch.tensor([5000.0, 7500.0]), many).exp().tolist() == pytest.approx([0.5, 0.25], abs=0.001)
    far = torch.tensor([1e6, 1e6 + 1], dtype=torch.float64)
    assert float(smooth_log_p(far, own).diff()) == pytest.approx(-1 / width, rel=1e-6)  # never without a slope


@pytest.mark.parametrize("part", [3, 100])
def test_the_combined_score_is_by_the_defences_own_distance_and_its_rise_the_central_difference(
    monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    for module in (adaptive_samples, known_scores):
        monkeypatch.setattr(module, "PART", part)
    (x, y), own, historical, current = batch(7, 0), batch(12, 9), net(1).train(), net(2).train()
    score = Combined(Discrepancy(historical, current), own)
    values, rise = score_rise(score, x, y)
    torch.testing.assert_close(values, literal_c(historical, current, own, x, y).detach())
    trusted, detector = TrustedSet(historical, current, *own), Mahalanobis(Mahalanobis.Params())
    distances = detector(compute_outputs(historical, current, x, y, lambda: trusted.samples)).double()
    expected = -smooth_log_p(distances, trusted.scores(detector).double())
    d, own_d = (literal_d(historical, current, each).detach() for each in (x, own[0]))
    torch.testing.assert_close(values, expected - smooth_log_p(d, own_d), rtol=1e-4, atol=1e-4)  # that is in 32 bits
    assert not (values.requires_grad or rise.requires_grad) and current.training and historical.training
    for seed in range(3):
        direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
        sides = [float(scores(score, x + sign * 1e-5 * direction, y).mean()) for sign in (1, -1)]
        assert float((rise * direction).sum()) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


def test_a_model_that_has_diverged_has_no_combined_score() -> None:
    (x, y), own, current = batch(4, 0), batch(6, 1), net(2)
    nn.init.constant_(current[0].weight, math.nan)
    assert scores(Combined(Discrepancy(net(1), current), own), x, y).isnan().all()


def test_features_that_a_model_has_not_cannot_be_held_back() -> None:
    with pytest.raises(ConfigError, match=r"attack.restrained_score: combined needs .* allowed: discrepancy\."):
        require_features(nn.Sequential(nn.Conv2d(1, 4, 6), nn.Flatten()))


# -- crafting ----------------------------------------------------------------------------------------------------------


def literal_units(model: nn.Module, x: Tensor, y: Tensor) -> list[Tensor]:
    grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()), create_graph=True)
    return [g / g.norm() for g in grads]


def literal_craft(
    restraint: Restraint, x: Tensor, y: Tensor, towards: list[Tensor], sign: float, radius: float, steps: int
) -> Tensor:
    """Signed ascent on sign · Σ ⟨ĝ(x'), towards⟩ − μ mean D, or on −D alone above the limit, all by autograd.

    The restraint's score is a literal one, which is called with the graph.
    """
    current, moved = net(2).eval(), x
    for _ in range(steps):
        probe = moved.clone().requires_grad_()
        d = restraint.score(probe, y)
        aligned = sum((u * t).sum() for u, t in zip(literal_units(current, probe, y), towards, strict=True))
        if restraint.limit is None:
            (uphill,) = torch.autograd.grad(sign * aligned - restraint.penalty * d.mean(), probe)
        else:
            (uphill,) = torch.autograd.grad(sign * aligned, probe, retain_graph=True)
            (downhill,) = torch.autograd.grad(-d.sum(), probe)
            uphill[d > restraint.limit] = downhill[d > restraint.limit]
        moved = moved + 2 * radius / steps * uphill.sign()
        moved = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 1)
    return moved


@pytest.mark.parametrize(("which", "limit"), [("d", None), ("d", 0.02), ("c", None), ("c", 1.5)])
@pytest.mark.parametrize("steps", [1, 3])
def test_crafted_samples_are_the_literal_ones(which: str, limit: float | None, steps: int) -> None:
    historical, current = net(1), net(2)
    (x, y), (x_val, y_val), (x_tri, y_tri) = batch(8, 4), batch(9, 5), batch(6, 6)
    d: Score = Discrepancy(historical, current)
    score = d if which == "d" else Combined(Discrepancy(historical, current), (x_val, y_val))
    price = 20.0 if which == "d" else 2.0
    restraint = Restraint(score, price, limit)

    def literally(moved: Tensor, claimed: Tensor) -> Tensor:
        if which == "d":
            return literal_d(historical, current, moved)
        return literal_c(historical, current, (x_val, y_val), moved, claimed)

    literal = Restraint(literally, price, limit)
    twin = copy.deepcopy(current).eval()
    validation = [u.detach() for u in literal_units(twin, x_val, y_val)]
    how: dict[str, Any] = {"radius": 0.2, "steps": steps}
    trigger = craft_trigger(current, x, y, x_val, y_val, restraint=restraint, **how)
    torch.testing.assert_close(trigger, literal_craft(literal, x, y, validation, -1.0, **how))
    h = steering_direction(current, x_tri, y_tri, x_val, y_val)
    towards = [u.detach() + v / v.norm() for u, v in zip(literal_units(twin, x, y), h, strict=True)]
    poison = craft_accumulative(current, x, y, h, restraint=restraint, **how)
    torch.testing.assert_close(poison, literal_craft(literal, x, y, towards, 1.0, **how))
    assert not torch.equal(poison, craft_accumulative(current, x, y, h, **how))
    assert not torch.equal(trigger, craft_trigger(current, x, y, x_val, y_val, **how))
    free = {**how, "restraint": Restraint(score, 0.0)}  # who pays nothing is not restrained, to the last bit
    assert torch.equal(
        craft_trigger(current, x, y, x_val, y_val, **how), craft_trigger(current, x, y, x_val, y_val, **free)
    )
    assert torch.equal(craft_accumulative(current, x, y, h, **how), craft_accumulative(current, x, y, h, **free))


@pytest.mark.parametrize("which", ["d", "c"])
def test_the_higher_the_price_the_smaller_the_score_of_what_is_crafted(which: str) -> None:
    """The whole loop, K = 2 and 10, in the mean over models and batches."""
    for steps in (2, 10):
        means = []
        for price in (0.0, 10.0, 1000.0):
            found = []
            for seed in range(2):
                historical, current = net(seed), net(seed + 10)
                (x, y), (x_val, y_val), (x_tri, y_tri) = batch(12, seed), batch(12, seed + 50), batch(8, seed + 90)
                how: dict[str, Any] = {"radius": 0.1, "steps": steps}
                discrepancy = Discrepancy(historical, current)
                score: Score = discrepancy if which == "d" else Combined(discrepancy, batch(20, seed + 70))
                how["restraint"] = Restraint(score, price)
                h = steering_direction(current, x_tri, y_tri, x_val, y_val)
                for moved in (
                    craft_accumulative(current, x, y, h, **how),
                    craft_trigger(current, x, y, x_val, y_val, **how),
                ):
                    found.append(float(scores(score, moved, y).mean()))
            means.append(sum(found) / len(found))
        assert all(a >= b for a, b in pairwise(means)), means
        assert means[-1] < 0.8 * means[0]


# -- what is sent ----------------------------------------------------------------------------------------------------


class Pixel(nn.Module):
    """p = (1/2, 1/2) for the historical model (`scale` 0); logits (scale · pixel, 0) for the current one."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.scale * x.flatten(1)[:, 0], torch.zeros(len(x))], dim=1)


def limit_at(level: float) -> float:
    """D of a pixel of so many 255ths under `Pixel(20)`: log(1 + e^z) − z / 2 − log 2, by hand."""
    z = 20 * level / 255
    return math.log1p(math.exp(-z)) + z / 2 - math.log(2)


def test_what_is_above_the_limit_is_halved_towards_the_clean_sample() -> None:
    clean = np.array([10, 10, 10, 200, 10, 100], np.uint8).reshape(-1, 1, 1, 1)
    crafted = np.array([210, 60, 12, 250, 110, 0], np.uint8).reshape(-1, 1, 1, 1)
    labels, score = np.zeros(6, np.int64), Discrepancy(Pixel(0.0), Pixel(20.0))
    restraint = Restraint(score, 0.0, limit_at(61))
    below = restraint.below_limit(crafted, clean, labels)
    # 10 + 200 / 4; as it came, twice; clean, as that is above, too; 10 + 100 / 2; downwards it is below already
    assert below.ravel().tolist() == [60, 60, 12, 200, 60, 0] and below.dtype == np.uint8
    assert restraint.below_limit(crafted, clean, labels, halvings=1).ravel().tolist() == [10, 60, 12, 200, 60, 0]
    unknown = Restraint(Discrepancy(Pixel(0.0), Pixel(math.nan)), 0.0, 1e9)
    assert unknown.below_limit(crafted, clean, labels).tolist() == clean.tolist()
    assert Restraint(score, 0.0).below_limit(crafted, clean, labels) is crafted
    assert crafted.ravel().tolist() == [210, 60, 12, 250, 110, 0]


class Setting:
    """A coalition of three among five clients, and a server's model that moves."""

    def __init__(self, make_config: Make, folder: Path, changes: dict[str, Any] | None = None, **attack: Any) -> None:
        settings = {"model": {"name": "cnn", "width": 2}, **(changes or {})}
        self.config = make_config({**settings, "attack": {"name": "accumulative", "fraction": 0.6, **attack}})
        self.data: FederatedData = load_federated_data(self.config)
        self.coalition: Coalition = coalition_of(self.data, folder)
        self.team = self.coalition._team

    def model(self, version: int) -> nn.Module:
        """The server's of round `version`."""
        return model_for(self.config.model, self.data.images, version)


@pytest.mark.parametrize(("trigger", "which"), [("online", "discrepancy"), ("fixed", "combined")])
def test_members_stay_below_the_limit_in_both_phases(
    make_config: Make, tmp_path: Path, trigger: str, which: str
) -> None:
    """By the defence's own function and history. Who is above was so before it was touched, and is left alone."""
    free = Setting(make_config, tmp_path / "free", {"history": {"name": "lag", "lag": 1}}, trigger=trigger)
    models = [free.model(round) for round in range(5)]

    def measured(pair: tuple[nn.Module, nn.Module], x: Tensor, y: Tensor) -> Tensor:
        if which == "discrepancy":
            return fedmd.memorization_discrepancy(*pair, x)
        return scores(Combined(Discrepancy(*pair), free.team.own_data.tensors()), x, y)

    probe = free.data.images.take(free.data.split.test).tensors()
    limit = min(float(measured(pair, *probe).median()) for pair in pairwise(models[1:]))
    known = {"defense_knowledge": "model_and_threshold", "max_discrepancy": limit, "trigger": trigger}
    known["restrained_score"] = which
    bound = Setting(make_config, tmp_path / "bound", {"history": {"name": "lag", "lag": 1}}, **known)
    over, moved = dict.fromkeys(("free", "bound"), 0), 0
    for round in range(2, 5):
        model, before = models[round], models[round - 1]
        if round == 2:
            bound.coalition.poison(bound.data.streams.batch(bound.team.members[0], 1), before)  # honest: it watches
        for client in bound.team.members:
            honest = bound.data.streams.batch(client, round)
            for name, setting in (("free", free), ("bound", bound)):
                sent = setting.coalition.poison(honest, model)
                assert np.abs(sent.images.astype(int) - honest.images).max() <= 76
                x, y = torch.from_numpy(sent.images).float() / 255, torch.from_numpy(sent.labels)
                above = (measured((before, model), x, y) > limit * (1 + 1e-5)).numpy()
                over[name] += int(above.sum())
                if name == "bound":
                    assert np.array_equal(sent.images[above], honest.images[above])
                    moved += int((sent.images != honest.images).any(axis=(1, 2, 3)).sum())
    assert over["bound"] < over["free"] and moved > 3


# -- the historical model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ({"name": "ema", "decay": 0.7}, lambda first: Ema(0.7)),
        ({"name": "lag", "lag": 2}, lambda first: Lag(2)),
        ({"name": "snapshot", "epoch": 2}, lambda first: Snapshot(first)),
    ],
)
def test_the_historical_model_is_the_servers_own(
    make_config: Make, tmp_path: Path, history: dict[str, Any], expected: Callable[..., History]
) -> None:
    """Whoever asks, however often, in honest rounds or not, and after a restart in the middle."""
    known = {"defense_knowledge": "model", "discrepancy_penalty": 1.0}
    setting = Setting(make_config, tmp_path / "a", {"history": history}, **known)
    resumed = Setting(make_config, tmp_path / "b", {"history": history}, **known)
    server = expected(setting.model(0).state_dict())
    for round in range(6):
        model = setting.model(round)
        server.observe(model.state_dict())
        if round == 3:
            resumed.coalition.cache.folder.mkdir(parents=True)
            resumed.coalition.cache.restore(setting.coalition.cache.state())
            setting = resumed
        for client in setting.team.members:
            setting.coalition.poison(setting.data.streams.batch(client, round), model)
        found = historical_state(setting.team, round, model)
        assert found.keys() == server.state.keys()
        assert all(torch.equal(tensor, server.state[name]) for name, tensor in found.items())


def test_a_model_that_is_for_two_rounds_counts_once(make_config: Make, tmp_path: Path) -> None:
    """Whichever of the rounds a worker comes to first."""
    changes = {"history": {"name": "ema", "decay": 0.7}, "federation": {"clients": 5, "batches_per_reply": 2}}
    orders = ((0, 1, 2, 3, 4, 5), (1, 0, 3, 2, 3, 5, 4, 5))
    settings = [Setting(make_config, tmp_path / str(order[0]), changes, defense_knowledge="model") for order in orders]
    server = Ema(0.7)
    for version in (0, 2, 4):
        server.observe(settings[0].model(version).state_dict())
    for setting, order in zip(settings, orders, strict=True):
        for round in order:
            found = historical_state(setting.team, round, setting.model(round - round % 2))
        assert all(torch.equal(tensor, server.state[name]) for name, tensor in found.items())


def test_who_knows_nothing_looks_at_no_model_in_honest_rounds(make_config: Make, tmp_path: Path) -> None:
    setting = Setting(make_config, tmp_path / "shared")
    assert not setting.coalition.watches
    setting.coalition.poison(setting.data.streams.batch(setting.team.members[0], 0), setting.model(0))
    assert not (tmp_path / "shared").exists()


# -- settings, and a whole run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ({"max_discrepancy": 0.1}, "attack.max_discrepancy: is for attack.defense_knowledge=model_and_threshold"),
        ({"discrepancy_penalty": 1.0}, "attack.discrepancy_penalty: is for attack.defense_knowledge=model"),
        (
            {"defense_knowledge": "model_and_threshold"},
            "attack.max_discrepancy: must be given with attack.defense_knowledge=model_and_threshold",
        ),
        (
            {"defense_knowledge": "model", "discrepancy_penalty": -1.0},
            "attack.discrepancy_penalty: .* greater than or equal to 0",
        ),
        ({"defense_knowledge": "threshold"}, "attack.defense_knowledge: .* none, model or model_and_threshold"),
        (
            {"restrained_score": "combined"},
            "attack.restrained_score: is for attack.defense_knowledge=model or model_and_threshold",
        ),
        (
            {"defense_knowledge": "model", "restrained_score": "both"},
            "attack.restrained_score: .* discrepancy or combined",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    make_config: Make, tmp_path: Path, attack: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Setting(make_config, tmp_path, **attack)


def overrides(cache: Path) -> list[str]:
    """Five clients, two malicious, a net that learns fast; two clean rounds first."""
    left_out = ("model.width", "history", "threshold")
    small = [each for each in RUNS["stream-undefended"] if not each.startswith(left_out)]
    learns = ["model=mlp", "training.online.lr=0.5", "training.online.batchnorm=train", "history=ema"]
    return [*small, *learns, "stream.recovery_rounds=0", f"runtime.cache_dir={cache}"]


def test_a_run_records_the_smaller_discrepancy_of_those_who_know(tmp_path: Path) -> None:
    """The server's own record of what members send after clean rounds: by price and by limit below the free ones."""
    run = [*overrides(tmp_path), "stream.accumulative_rounds=1"]
    knows = "attack.defense_knowledge="
    arms = {
        "nothing": [],
        "model": [f"{knows}model", "attack.discrepancy_penalty=1000"],
        "limit": [f"{knows}model_and_threshold", "attack.max_discrepancy=0.04", "attack.steps=5"],
    }
    means, worst = {}, {}
    for name, attack in arms.items():
        config, reports = compose([*run, *attack, f"hydra.run.dir={tmp_path / name}"]).config, list[RoundReport]()
        grid = InlineGrid(app, config.federation.simulated_nodes)
        with server_identity():
            serve(grid, config, tmp_path / name, lambda config, report, kept=reports: kept.append(report))
        malicious = malicious_clients(5, 0.4, config.seed)
        values = reports[2].verdicts.before[np.isin(reports[2].clients, malicious)]
        assert reports[2].phase == "accumulative" and len(values) == 12
        means[name], worst[name] = float(values.mean()), float(np.sort(values)[8])
    assert means["model"] < 0.7 * means["nothing"] and means["limit"] < means["nothing"]
    assert worst["limit"] <= 0.04 < worst["nothing"]


def test_a_run_that_was_killed_in_the_attack_goes_on_as_if_it_had_not(tmp_path: Path) -> None:
    run = [*overrides(tmp_path), "stream.accumulative_rounds=2", "attack.defense_knowledge=model"]
    whole = federate(run, tmp_path / "whole", tmp_path)
    resumed = federate(run, tmp_path / "resumed", tmp_path, stop_after=3)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
