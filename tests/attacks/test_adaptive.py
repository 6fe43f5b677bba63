"""Eq (11) against a naive loop, central differences and a hand-computed choice."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedmd.attacks.adaptive import discrepancy_gradient, largest_discrepancy, most_worthwhile, seen_models
from fedmd.attacks.shared_cache import SharedCache


def naive_discrepancy(historical: Tensor, logits: Tensor) -> float:
    """The largest over h of the mean over n of Σ_k p_h (log p_h − log p), by loops."""
    each = []
    for h in historical.tolist():
        total = 0.0
        for row, other in zip(h, logits.tolist(), strict=True):
            p = [math.exp(a) / sum(math.exp(b) for b in row) for a in row]
            q = [math.exp(a) / sum(math.exp(b) for b in other) for a in other]
            total += sum(a * (math.log(a) - math.log(b)) for a, b in zip(p, q, strict=True))
        each.append(total / len(h))
    return max(each)


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.mark.parametrize("histories", [1, 3])
def test_the_discrepancy_is_the_naive_loops(histories: int) -> None:
    torch.manual_seed(histories)
    historical, logits = torch.randn(histories, 7, 4, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    assert largest_discrepancy(historical, logits).item() == pytest.approx(naive_discrepancy(historical, logits))


def test_the_gradient_is_the_central_difference_and_the_model_stays() -> None:
    model, x = net(0), torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model.train()
    historical = torch.stack([net(seed).eval()(x).detach() for seed in (1, 2)])
    before = copy.deepcopy(model.state_dict())
    uphill = discrepancy_gradient(model, historical, x)
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    start = nn.utils.parameters_to_vector(model.parameters()).detach()
    for seed in range(3):
        direction = torch.randn(uphill.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        sides = []
        for sign in (1, -1):
            moved = copy.deepcopy(model).eval()
            nn.utils.vector_to_parameters(start + sign * 1e-5 * direction, moved.parameters())
            sides.append(naive_discrepancy(historical, moved(x).detach()))
        assert float(uphill @ direction) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-4, abs=1e-7)


def test_the_most_worthwhile_share_by_hand() -> None:
    update = torch.tensor([8.0, 0.0])
    assert most_worthwhile(update, lambda u: -abs(float(u[0]) - 2.1)).tolist() == [2.0, 0.0]
    assert most_worthwhile(update, lambda u: -float(u[0])).tolist() == [0.0, 0.0]
    assert most_worthwhile(update, lambda u: 1.0).tolist() == [8.0, 0.0]
    assert most_worthwhile(update, lambda u: -math.inf if u[0] > 1 else float(u[0])).tolist() == [1.0, 0.0]


def test_the_models_that_were_seen(tmp_path: Path) -> None:
    """The first one, and that of two rounds ago as soon as there is one; what is between is forgotten."""
    cache = SharedCache(tmp_path)
    found = []
    for round in range(5, 11):
        current = {"w": torch.full((2,), float(round)), "batches": torch.tensor(round)}
        found.append([state["w"][0].item() for state in seen_models(cache, round, current, 2)])
    assert found == [[5, 5], [5, 5], [5, 5], [5, 6], [5, 7], [5, 8]]
    assert {key.split("/")[0] for key in cache.kept("models") or {}} == {"5", "8", "9", "10"}
    assert [state["w"][0].item() for state in seen_models(cache, 11, {"w": torch.zeros(2)}, None)] == [5]
    assert [len(seen_models(SharedCache(tmp_path / "b"), 0, {"w": torch.zeros(1)}, lag)) for lag in (None, 0)] == [1, 2]
