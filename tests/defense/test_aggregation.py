"""Norm clipping, centered clipping and FLTrust against ByzFL where it has them, and by hand where not."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.defense.updates.aggregators import centered_clipping, clip_norms, fltrust

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


# -- finite, but not its square -------------------------------------------------------------------------------------


def naive_clip(rows: np.ndarray, bound: float | None) -> np.ndarray:
    norms = np.array([np.sqrt(sum(x * x for x in row)) for row in rows])
    limit = np.median(norms) if bound is None else bound
    return np.array([row * min(1, limit / norm) for row, norm in zip(rows, norms, strict=True)])


def naive_centered(rows: np.ndarray, centre: np.ndarray, radius: float | None) -> np.ndarray:
    for _ in range(3):
        norms = [np.sqrt(sum(x * x for x in row - centre)) for row in rows]
        radius = float(np.median(norms)) if radius is None else radius
        steps = [(row - centre) * min(1, radius / norm) for row, norm in zip(rows, norms, strict=True)]
        centre = centre + sum(steps) / len(rows)
    return centre


def naive_fltrust(rows: np.ndarray, reference: np.ndarray) -> np.ndarray:
    size, total, mean = math.sqrt(sum(reference**2)), 0.0, np.zeros_like(reference)
    for row in rows:
        norm = math.sqrt(sum(row**2))
        trust = max(0.0, sum(row * reference) / (norm * size))
        total, mean = total + trust, mean + trust * size / norm * row
    return mean / total


def stretched(row: torch.Tensor, factor: float) -> torch.Tensor:
    """What a client can send: finite float32."""
    return (row.double() * factor).clamp(-3e38, 3e38).float()


def nine_honest(seed: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten updates near the reference, the tenth is the attacker's own before it is stretched; float32."""
    reference = updates(seed, 1, d)[0]
    return (0.01 * (reference + 0.5 * updates(seed + 1, 10, d))).float(), (0.01 * reference).float()


FACTORS = [1e40, 1e25, 1e18, 1.0, 1e-20, 1e-26, 1e-33, 1e-40]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("d", [3, 2000])
def test_no_stretching_of_one_among_ten_is_felt_by_fltrust(factor: float, d: int) -> None:
    rows, reference = nine_honest(3, d)
    rows[9] = stretched(rows[9], factor)
    assert rows.isfinite().all()
    expected = naive_fltrust(rows.double().numpy(), reference.double().numpy())
    found = fltrust(rows, reference)
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert found.norm() <= reference.norm() * (1 + 1e-5)


@pytest.mark.parametrize("factor", [1e40, 1e20, 1e-20, 1e-35])
def test_fltrust_takes_the_length_from_the_server_whatever_it_is(factor: float) -> None:
    rows, reference = nine_honest(5, 50)
    long = stretched(reference, min(factor, 1e37))
    expected = naive_fltrust(rows.double().numpy(), long.double().numpy())
    np.testing.assert_allclose(fltrust(rows, long).double().numpy(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("bound", [0.1, 1e6, None])
def test_one_stretched_update_among_ten_is_clipped_like_any(factor: float, bound: float | None) -> None:
    rows, centre = nine_honest(7, 200)
    rows[9] = stretched(rows[9], factor)
    wide = rows.double().numpy()
    expected = naive_clip(wide, bound)
    scale = np.abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(clip_norms(rows, bound).double().numpy() / scale, expected / scale, rtol=1e-4, atol=1e-6)
    expected = naive_centered(wide, centre.double().numpy(), bound)
    found = centered_clipping(rows, centre, bound).double().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("aim", [0.0, 1.0])
def test_the_longest_updates_there_are_stay_finite(dtype: torch.dtype, aim: float) -> None:
    rows = torch.full((4, 1000), torch.finfo(dtype).max * aim, dtype=dtype)
    rows[:2] = torch.finfo(dtype).tiny
    reference = torch.ones(1000, dtype=dtype)
    rules: list[Callable[[], torch.Tensor]] = [
        lambda: clip_norms(rows),
        lambda: centered_clipping(rows, reference),
        lambda: fltrust(rows, reference),
    ]
    assert all(rule().isfinite().all() for rule in rules)
    torch.testing.assert_close(fltrust(rows, reference), reference)


@settings(deadline=None)
@given(SEEDS, st.floats(1e-6, 1e6))
def test_ordinary_updates_are_not_touched_by_a_bit(seed: int, factor: float) -> None:
    """Their sums of squares are those of the definition, in the dtype they came in."""
    rows = (updates(seed) * factor).float()
    norms = torch.linalg.vector_norm(rows, dim=1)
    expected = rows * torch.where(norms > 1.0, 1.0 / norms, 1.0)[:, None]
    assert torch.equal(clip_norms(rows, 1.0), expected)
    reference = updates(seed + 1)[0].float()
    size, products = torch.linalg.vector_norm(reference), rows @ reference
    trust = torch.where(products > 0, products / (norms * size), 0.0)
    if trust.sum() > 0:
        assert torch.equal(fltrust(rows, reference), (trust * (size / norms)) @ rows / trust.sum())
