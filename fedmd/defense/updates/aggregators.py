"""Robust aggregation of flat updates that Flower does not have: norm clipping, centered clipping, FLTrust.

Every kernel takes the clients' updates Δ_i = θ_i − θ_t as `updates` [n, d], floating, finite, n >= 1.

Finite is not harmless: in float32 the square of 3e38 is infinite, and that of 1e-30 is 0. So an update with an entry
beyond B = max^(3/8) of its dtype (float32: 2.8e14) is first shrunk, its direction kept, till its largest entry is B.
Clipping to less than B gives the same with it as without; an M or τ beyond B acts like B. All other updates stay as
they are, to the bit.
"""

import math

import torch
from torch import Tensor


def clip_norms(updates: Tensor, bound: float | None = None) -> Tensor:
    """min(1, M / ‖Δ_i‖) · Δ_i [n, d]: no client moves the model by more than M.

    Sun et al., Can You Really Backdoor Federated Learning?, 2019 (arXiv 1911.07963), without its optional noise. Their
    M is a constant; None takes the median of the round's norms, which needs no tuning and is ours to answer for.
    """
    updates = _in_range(updates)
    norms = torch.linalg.vector_norm(updates, dim=1)
    limit = norms.quantile(0.5) if bound is None else torch.as_tensor(bound, dtype=updates.dtype, device=updates.device)
    return updates * _shrink(norms, limit)[:, None]


def centered_clipping(updates: Tensor, centre: Tensor, radius: float | None = None, iterations: int = 3) -> Tensor:
    """v ← v + (1/n) Σ_i (Δ_i − v) · min(1, τ / ‖Δ_i − v‖), `iterations` times from v = `centre` [d]; the last v [d].

    Karimireddy, He and Jaggi, Learning from History for Byzantine Robust Optimization, ICML 2021: `centre` is the
    aggregate of the round before. τ = `radius`; None takes the median of ‖Δ_i − centre‖, which is ours.
    """
    updates = _in_range(updates)
    limit = None if radius is None else torch.as_tensor(radius, dtype=updates.dtype, device=updates.device)
    for _ in range(iterations):
        away = updates - centre
        norms = torch.linalg.vector_norm(away, dim=1)
        limit = norms.quantile(0.5) if limit is None else limit
        centre = centre + (away * _shrink(norms, limit)[:, None]).mean(dim=0)
    return centre


def fltrust(updates: Tensor, reference: Tensor) -> Tensor:
    """Σ_i TS_i · (‖Δ_0‖ / ‖Δ_i‖) Δ_i / Σ_j TS_j with TS_i = max(0, cos(Δ_i, Δ_0)), and Δ_0 = `reference` [d]; [d].

    Cao et al., FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping, NDSS 2021: Δ_0 is the server's own
    update, trained on its trusted (root) set. Zero where no client agrees with the server at all. As no Δ_i counts by
    its length, one without an entry of 1/B is stretched likewise, lest its norm vanish before its product does.
    """
    least = 1 / _largest(updates.dtype)
    updates, server = _in_range(updates, least), _in_range(reference[None], least)[0]
    norms = torch.linalg.vector_norm(updates, dim=1)
    size = torch.linalg.vector_norm(server)
    products = updates @ server
    trust = torch.where(products > 0, products / (norms * size), 0.0)
    if not bool(trust.sum() > 0):
        return torch.zeros_like(reference)
    scale = torch.where(norms > 0, size / norms, 0.0)
    scaled: Tensor = torch.linalg.vector_norm(reference, torch.inf) / torch.linalg.vector_norm(server, torch.inf)
    return (trust * scale) @ updates / trust.sum() * scaled


def _shrink(norms: Tensor, limit: Tensor) -> Tensor:
    """min(1, limit / norm) per client; 1 for an update of norm zero."""
    return torch.where(norms > limit, limit / norms, 1.0)


def _in_range(updates: Tensor, least: float = 0.0) -> Tensor:
    """`updates`, but those whose largest entry is beyond B, or below `least` and not 0, are scaled till it is there."""
    largest = torch.linalg.vector_norm(updates, torch.inf, dim=1)
    wanted = torch.where(largest > 0, largest.clamp(least, _largest(updates.dtype)), largest)
    if torch.equal(wanted, largest):
        return updates  # and not a copy of so many models
    return updates * torch.where(largest > 0, wanted / largest, 1.0)[:, None]


def _largest(dtype: torch.dtype) -> float:
    """B: d < 2^31 squares of it add up to a float32, and to any wider number."""
    return math.pow(torch.finfo(dtype).max, 0.375)
