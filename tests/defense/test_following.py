"""A trusted set that follows the stream: what goes in, what goes out, and that a run can go on with it."""

import pytest
import torch
from torch import Tensor

from fedmd import Pipeline
from fedmd.defense.samples.following import Following, less_suspicious

CLIENTS = torch.tensor([1, 1, 5, 5, 9, 9, 7, 7])
SCORES = torch.tensor([0.1, 0.3, 0.0, 0.9, 0.3, 0.3, 5.0, 5.0])  # means .2, .45, .3, 5


def images(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def test_the_less_suspicious_half() -> None:
    assert less_suspicious(SCORES, CLIENTS).tolist() == [True, True, False, False, True, True, False, False]


def test_what_is_no_number_is_suspicious() -> None:
    scores = torch.tensor([float("nan"), 1.0, 2.0])
    assert less_suspicious(scores, torch.tensor([1, 2, 3])).tolist() == [False, True, True]
    assert not less_suspicious(torch.full((2,), float("nan")), torch.tensor([1, 2])).any()
    assert less_suspicious(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).tolist() == []


def test_the_newest_take_the_place_of_the_last() -> None:
    own = images(*(n / 100 for n in range(8))), torch.arange(8)
    following = Following(own, 0.5)
    assert torch.equal(following.trusted[1], own[1])
    following.observe(images(*[0.5] * 8), torch.arange(10, 18), SCORES, CLIENTS)
    assert following.trusted[1].tolist() == [0, 1, 2, 3, 10, 11, 14, 15]
    following.observe(images(*[0.6] * 2), torch.tensor([20, 21]), torch.zeros(2), torch.tensor([1, 2]))
    x, y = following.trusted
    assert y.tolist() == [0, 1, 2, 3, 14, 15, 20, 21] and x[:, 0, 0, 0].tolist()[-1] == pytest.approx(0.6)
    again = Following(own, 0.5)
    again.restore(following.state())
    assert all(torch.equal(a, b) for a, b in zip(again.trusted, following.trusted, strict=True))


def test_a_pipeline_follows_and_goes_on() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    clean = torch.rand(40, 1, 2, 2), torch.arange(40) % 2

    def pipeline() -> Pipeline:
        return Pipeline.from_config(
            model, defense={"name": "drop", "follow": 0.25}, history={"name": "lag", "lag": 3}, trusted=clean
        )

    first, second = pipeline(), pipeline()
    first.screen(torch.ones(8, 1, 2, 2), torch.ones(8, dtype=torch.int64), CLIENTS)
    assert torch.equal(first.trusted[0][:32], clean[0][:32])
    assert (first.trusted[0][32:] == 1).all() and len(first.trusted[0]) == 40
    second.restore(first.state())
    assert torch.equal(second.trusted[0], first.trusted[0])
