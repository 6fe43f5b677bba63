"""Random numbers are a function of (seed, purpose, client, round), the same on every machine and in every process."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from fedmd.seeding import generator, numpy_generator, seed_for

PURPOSES = ("roster", "stream", "clients", "model")


@pytest.mark.parametrize(
    ("arguments", "golden"),
    [
        ((0, "roster"), 2_914_181_046_505_946_461),
        ((0, "stream", 3, 7), 3_125_202_230_816_661_421),
        ((12345678901, "model", 0, 1), 1_672_769_836_178_601_919),
    ],
)
def test_golden_numbers(arguments: tuple[int, str, int, int], golden: int) -> None:
    """Published results depend on these: a change of them is a change of every number in the README."""
    assert seed_for(*arguments) == golden


def test_golden_draws() -> None:
    assert torch.randperm(8, generator=generator(0, "burn_in")).tolist() == [4, 3, 7, 1, 2, 6, 0, 5]
    assert numpy_generator(0, "roster").permutation(8).tolist() == [2, 4, 6, 0, 7, 1, 3, 5]


def test_crc32_of_the_purpose() -> None:
    """CRC-32 of b"123456789" is 0xCBF43926 by definition: the purpose is not hashed with Python's salted hash()."""
    expected = np.random.SeedSequence((5, 0xCBF43926, 6, 7)).generate_state(1, np.uint64)[0] >> np.uint64(1)
    assert seed_for(5, "123456789", 6, 7) == int(expected)


def test_same_numbers_in_another_process() -> None:
    code = "from fedmd.seeding import seed_for; print(seed_for(4, 'stream', 2, 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == seed_for(4, "stream", 2, 9)


def test_fits_a_torch_seed() -> None:
    seeds = [seed_for(seed, "x") for seed in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # and uses the whole range


def test_every_argument_matters() -> None:
    """(seed, client, round) permuted, or another purpose, is another stream: no two of 5^3 * 4 seeds are equal."""
    tuples = itertools.product(range(5), PURPOSES, range(5), range(5))
    seeds = [seed_for(*arguments) for arguments in tuples]
    assert len(set(seeds)) == len(seeds) == 500


def test_streams_are_uncorrelated() -> None:
    """Draws for neighbouring clients, rounds, seeds and purposes: 4,000 numbers each, |r| < 0.08 is 5 sigma."""
    draws = [
        numpy_generator(seed, purpose, client, round).standard_normal(4000)
        for seed, purpose, client, round in [
            (0, "roster", 0, 0),
            (1, "roster", 0, 0),
            (0, "stream", 0, 0),
            (0, "stream", 1, 0),
            (0, "stream", 0, 1),
        ]
    ]
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 0.08


def test_a_generator_is_its_own_and_leaves_the_global_one_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = generator(0, "x"), generator(0, "x")
    torch.rand(10, generator=first)
    assert torch.equal(torch.rand(3, generator=second), torch.rand(3, generator=generator(0, "x")))
    assert torch.equal(torch.random.get_rng_state(), before)
