"""Noise, against the uniform distribution and the ball it must fill."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from fedmd.attacks.catalogue.noise import add_noise
from fedmd.seeding import generator


def noise(x: torch.Tensor, radius: float, client: int = 0) -> torch.Tensor:
    return add_noise(x, radius, generator(0, "noise", client, 3))


def test_noise_is_uniform_in_the_ball() -> None:
    x = torch.full((50, 1, 10, 10), 0.5)
    moved = (noise(x, 0.3) - x).flatten().numpy()
    assert kstest(moved, "uniform", args=(-0.3, 0.6)).pvalue > 0.01
    neighbours = np.corrcoef(moved[:-1], moved[1:])[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(len(moved))  # pixel by pixel


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_noise_stays_in_the_range_of_pixels(value: float) -> None:
    x = torch.full((4, 1, 8, 8), value)
    moved = noise(x, 0.3)
    assert moved.min() >= 0 and moved.max() <= 1
    assert 0.4 < (moved == x).float().mean() < 0.6  # half of it points outwards


def test_noise_is_a_function_of_its_generator() -> None:
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(noise(x, 0.1), noise(x, 0.1))
    assert not torch.equal(noise(x, 0.1), noise(x, 0.1, client=1))
    assert torch.equal(noise(x, 0.0), x)
