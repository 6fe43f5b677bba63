"""Norm clipping, centered clipping and FLTrust against ByzFL where it has them, and by hand where not."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.defense.aggregation import centered_clipping, clip_norms, fltrust

BOUNDS = st.floats(0.1, 20)
SEEDS = st.integers(0, 1000)


def updates(seed: int, n: int = 7, d: int = 5) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None)
@given(SEEDS, BOUNDS)
def test_clip_norms_against_byzfl(seed: int, bound: float) -> None:
    byzfl = pytest.importorskip("byzfl")
    rows = updates(seed)
    torch.testing.assert_close(clip_norms(rows, bound).float(), byzfl.Clipping(bound)(rows))  # float32 is all it has


@settings(deadline=None)
@given(SEEDS, BOUNDS, st.integers(1, 4))
def test_centered_clipping_against_byzfl_over_two_rounds(seed: int, radius: float, iterations: int) -> None:
    rule = pytest.importorskip("byzfl").CenteredClipping(L=iterations, tau=radius)
    centre = torch.zeros(5, dtype=torch.float64)
    for round in range(2):
        rows = updates(seed + round)
        centre = centered_clipping(rows, centre, radius, iterations)
        torch.testing.assert_close(centre.float(), rule(rows))


def test_without_a_bound_the_median_norm_is_it() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.0, 1.0], [20.0, 0.0]])  # norms 5, 1, 20
    torch.testing.assert_close(clip_norms(rows), torch.tensor([[3.0, 4.0], [0.0, 1.0], [5.0, 0.0]]))
    clipped = centered_clipping(rows, torch.zeros(2), iterations=1)
    torch.testing.assert_close(clipped, torch.tensor([8 / 3, 5 / 3]))


def test_zero_updates_stay_zero() -> None:
    assert torch.equal(clip_norms(torch.zeros(3, 2)), torch.zeros(3, 2))
    assert torch.equal(centered_clipping(torch.zeros(3, 2), torch.zeros(2)), torch.zeros(2))


def test_fltrust_by_hand() -> None:
    reference = torch.tensor([2.0, 0.0])
    rows = torch.tensor([[5.0, 0.0], [1.0, 1.0], [-3.0, 0.0], [0.0, 0.0]])
    # trust 1, cos 45 deg, 0, 0; rows scaled to norm 2: (2, 0) and (sqrt 2, sqrt 2)
    trust = math.sqrt(0.5)
    expected = torch.tensor([2 + trust * math.sqrt(2), trust * math.sqrt(2)]) / (1 + trust)
    torch.testing.assert_close(fltrust(rows, reference), expected)


def test_fltrust_trusts_nobody_who_disagrees() -> None:
    assert torch.equal(fltrust(torch.tensor([[-1.0, 0.0], [0.0, 3.0]]), torch.tensor([2.0, 0.0])), torch.zeros(2))
    assert torch.equal(fltrust(torch.ones(2, 2), torch.zeros(2)), torch.zeros(2))


@settings(deadline=None)
@given(SEEDS, st.floats(0.01, 100))
def test_fltrust_does_not_care_how_long_updates_are(seed: int, factor: float) -> None:
    rows, reference = updates(seed), updates(seed + 1)[0]
    scaled = rows * torch.linspace(factor, 1, len(rows), dtype=rows.dtype)[:, None]
    torch.testing.assert_close(fltrust(scaled, reference), fltrust(rows, reference))
    assert fltrust(rows, reference).norm() <= reference.norm() * (1 + 1e-9)
