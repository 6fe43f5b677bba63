"""Min-Max and Min-Sum: the constraint is tight, and a literal search finds the same update."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmd.attacks import distances
from fedmd.attacks.distances import PERTURBATIONS, min_max, min_sum, spread

NAMES = list(PERTURBATIONS)
Attack = Callable[[Tensor, str], Tensor]
ATTACKS: list[Attack] = [min_max, min_sum]


def updates(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator, dtype=torch.float64) + 0.3).to(dtype)


def excess(attack: Attack, malicious: Tensor, honest: Tensor) -> float:
    """Left minus right side of the paper's constraint, by plain loops; <= 0 is allowed."""
    if attack is min_max:
        most = max(float((a - b).norm()) for a in honest for b in honest)
        return max(float((malicious - a).norm()) for a in honest) - most
    most = max(sum(float((a - b).square().sum()) for b in honest) for a in honest)
    return sum(float((malicious - a).square().sum()) for a in honest) - most


def literal_perturbation(name: str, honest: Tensor) -> Tensor:
    rows = honest.numpy()
    mean = rows.mean(axis=0)
    return torch.from_numpy(
        {
            "inverse_unit": -mean / np.sqrt((mean**2).sum()),
            "inverse_std": -rows.std(axis=0, ddof=1),
            "inverse_sign": -np.sign(mean),
        }[name]
    )


def halving_search(attack: Attack, name: str, honest: Tensor) -> Tensor:
    """The paper's search for γ: start at a large one, go up where allowed, down where not, halve the step."""
    p, mean = literal_perturbation(name, honest), honest.mean(dim=0)
    gamma, step, best = 64.0, 32.0, 0.0
    while step > 1e-12:
        if excess(attack, mean + gamma * p, honest) <= 0:
            best, gamma = gamma, gamma + step
        else:
            gamma = gamma - step
        step /= 2
    return mean + best * p


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_the_papers_own_search_finds_the_same(attack: Attack, name: str) -> None:
    honest = updates(5, 7, seed=1)
    assert torch.allclose(attack(honest, name), halving_search(attack, name, honest), atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ATTACKS), st.sampled_from(NAMES), st.integers(2, 7), st.integers(1, 9), st.integers(0, 999))
def test_the_constraint_holds_and_not_a_step_further(attack: Attack, name: str, n: int, d: int, seed: int) -> None:
    honest = updates(n, d, seed)
    malicious, mean = attack(honest, name), honest.mean(dim=0)
    assert excess(attack, malicious, honest) == pytest.approx(0, abs=1e-9)
    assert excess(attack, mean + 1.001 * (malicious - mean), honest) > 0


def test_on_a_line_by_hand() -> None:
    """Updates 1, 2, 6 (mean 3): Min-Max may be 5 from the farthest, so 6 − 5; Min-Sum Σ (3 − γ − Δ_i)² <= 41."""
    honest = torch.tensor([[1.0], [2.0], [6.0]])
    assert min_max(honest, "inverse_unit").item() == pytest.approx(1.0)
    # 14 + 3γ² = (5² + 4²) => γ = 3
    assert min_sum(honest, "inverse_sign").item() == pytest.approx(0.0, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(ATTACKS), st.sampled_from(NAMES), st.permutations(range(5)), st.floats(1e-3, 1e3))
def test_order_does_not_matter_and_scaling_goes_through(
    attack: Attack, name: str, order: list[int], factor: float
) -> None:
    honest = updates(5, 6, seed=3)
    plain = attack(honest, name)
    assert torch.allclose(attack(honest[order], name), plain)
    assert torch.allclose(attack(factor * honest, name), factor * plain)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("attack", ATTACKS)
def test_where_all_are_alike_or_alone_the_mean_is_sent(attack: Attack, name: str) -> None:
    row = torch.tensor([0.5, -1.0, 2.0])
    assert torch.allclose(attack(row.expand(4, 3), name), row)
    assert torch.allclose(attack(row[None], name), row)
    assert torch.equal(attack(torch.zeros(3, 2), name), torch.zeros(2))
    odd = torch.tensor([0.1, -0.7, 1 / 3], dtype=torch.float64)
    for copies in range(2, 10):  # the mean of equal rows is off by rounding for some
        assert torch.allclose(attack(odd.expand(copies, 3), name), odd)


def test_block_by_block_is_the_same_and_float32_is_precise(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = updates(6, 50, seed=4) * 1e-3 + 5.0  # close together, far from 0
    whole = min_max(wide)
    assert torch.allclose(min_max(wide.float()).double(), whole, rtol=0, atol=3e-6)
    monkeypatch.setattr(distances, "BLOCK", 7)
    assert torch.allclose(min_max(wide), whole, rtol=1e-12)


def test_the_spread_of_one_update_is_zero() -> None:
    assert spread(torch.tensor([[1.0, 2.0]])).tolist() == [0.0, 0.0]
    assert spread(torch.tensor([[1.0, 2.0], [3.0, 2.0]])).tolist() == pytest.approx([2**0.5, 0.0])


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_unknown_perturbation_is_named(attack: Attack) -> None:
    with pytest.raises(ValueError, match="inverse_std, inverse_unit, inverse_sign, got 'std'"):
        attack(torch.zeros(2, 2), "std")
