"""PoisonedFL's kernels against numbers worked out by hand and SciPy's test, and over rounds against a plain loop."""

from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest

from fedmd.attacks.catalogue.poisoned_fl import consistent_update, is_effective
from tests.attacks.test_update_coalition import Make, Setting


def test_hand_computed() -> None:
    moved, sent, signs = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), torch.tensor([1.0, -1.0])
    # ‖g‖ 5, ‖u‖ 2: the rest is |(3, 4) − 2.5 (0, 2)| = (3, 1), of length √10
    expected = 2 * 5 * torch.tensor([3.0, -1.0]) / 10**0.5
    assert torch.allclose(consistent_update(moved, sent, signs, 2.0), expected)
    assert torch.allclose(consistent_update(moved, torch.zeros(2), signs, 1.0), torch.tensor([3.0, -4.0]))


def test_nothing_is_sent_where_the_server_stood_still_or_did_as_it_was_told() -> None:
    signs = torch.tensor([1.0, -1.0])
    assert torch.equal(consistent_update(torch.zeros(2), torch.ones(2), signs, 8.0), torch.zeros(2))
    assert torch.equal(consistent_update(torch.ones(2), 3 * torch.ones(2), signs, 8.0), torch.zeros(2))


@pytest.mark.parametrize("agreeing", [50, 60, 62, 63, 70])
def test_the_effect_is_a_one_sided_binomial_test(agreeing: int) -> None:
    signs = torch.ones(100)
    moved = torch.where(torch.arange(100) < agreeing, 1.0, -1.0)
    assert is_effective(moved, signs) == (binomtest(agreeing, 100, 0.5, "greater").pvalue < 0.01)


def test_rounds_build_on_each_other(make_config: Make, tmp_path: Path) -> None:
    """Three rounds: honest, then along the signs; the second look back finds no effect, and c shrinks."""
    setting = Setting(make_config, tmp_path, name="poisoned_fl", scale=2.0, shrink=0.25, rounds=2)
    first, second = setting.coalition.members
    sent = {}
    honest = setting.delta(setting.honest(first, round=2))
    for round in (2, 3, 4):
        updates = [setting.delta(setting.coalition.update(each, setting.situation(round))) for each in (first, second)]
        assert torch.equal(*updates) == (round > 2)
        sent[round] = updates[0]
        step = {2: 0.01, 3: -0.02, 4: 0.0}[round]  # the server's, the same for every parameter
        for name, _ in setting.model.named_parameters():
            setting.start[name] = setting.start[name] + step
    d = len(sent[2])
    assert torch.allclose(sent[2], honest, atol=1e-6)
    signs = sent[3].sign()
    assert 0.4 < float((signs == 1).float().mean()) < 0.6
    assert float(sent[3].norm()) == pytest.approx(2.0 * 0.01 * d**0.5, rel=1e-2)
    both = (sent[4] != 0) & (sent[3] != 0)  # where a rest is 0, so is what is sent
    assert float(both.float().mean()) > 0.4 and torch.equal(sent[4][both].sign(), signs[both])
    assert float(sent[4].norm()) == pytest.approx(0.5 * 0.02 * d**0.5, rel=1e-2)  # 0.25 of 2 is the least there is
