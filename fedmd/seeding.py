"""Every random choice is a function of (seed, purpose, client, round): runs resume, worker counts do not matter."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, purpose: str, client: int = 0, round: int = 0) -> int:
    """A 63-bit seed for one purpose; two different argument tuples give unrelated streams.

    `purpose` is hashed with CRC-32, which unlike `hash()` is the same in every process.
    """
    entropy = (seed, zlib.crc32(purpose.encode()), client, round)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(seed: int, purpose: str, client: int = 0, round: int = 0) -> torch.Generator:
    """A CPU torch generator seeded by `seed_for`."""
    import torch  # here: whoever only needs NumPy's starts without it

    return torch.Generator().manual_seed(seed_for(seed, purpose, client, round))


def numpy_generator(seed: int, purpose: str, client: int = 0, round: int = 0) -> np.random.Generator:
    """A NumPy generator seeded by `seed_for`."""
    return np.random.default_rng(seed_for(seed, purpose, client, round))
