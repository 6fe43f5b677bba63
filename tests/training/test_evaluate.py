"""Accuracy, counted by hand; eval inside, every submodule's own flag back outside."""

import pytest
import torch
from torch import Tensor, nn

from fedmd.training.evaluate import accuracy, batch_normalising, evaluating


class FirstPixels(nn.Module):
    """Logits are the first row of the image; in train mode it answers wrongly."""

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return -x[:, 0, 0] if self.training else x[:, 0, 0]


@pytest.mark.parametrize("batch_size", [1, 3, 7, 500])
def test_hits_are_counted_over_every_batch(batch_size: int) -> None:
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    x = nn.functional.one_hot(torch.tensor([0, 1, 2, 3, 0, 2, 3]), 4).float().view(7, 1, 1, 4)
    assert accuracy(FirstPixels(), x, y, batch_size) == 5 / 7


def test_flags_come_back() -> None:
    model = nn.Sequential(FirstPixels(), nn.Dropout())
    model[1].eval()
    accuracy(model, torch.rand(2, 1, 1, 4), torch.zeros(2, dtype=torch.int64))
    assert [module.training for module in model.modules()] == [True, True, False]


def test_no_samples_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="no samples"):
        accuracy(FirstPixels(), torch.zeros(0, 1, 1, 4), torch.zeros(0, dtype=torch.int64))


def mixed_model() -> nn.Sequential:
    """In training mode as a whole, with a frozen BatchNorm and an inner block that disagree with it."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(), nn.ReLU()))
    model.train()
    model[1].eval()
    model[2].training = False  # the block says eval, its children say train
    return model


def flags(*models: nn.Module) -> list[bool]:
    return [module.training for model in models for module in model.modules()]


def test_every_submodule_is_in_eval_mode_inside_and_as_it_was_outside() -> None:
    first, second = mixed_model(), nn.Sequential(nn.BatchNorm1d(3)).eval()
    before = flags(first, second)
    with evaluating(first, second):
        assert not any(flags(first, second))
    assert flags(first, second) == before
    assert before == [True, True, False, False, True, True, False, False]


def test_flags_come_back_when_the_block_raises() -> None:
    model = mixed_model()
    before = flags(model)
    with pytest.raises(RuntimeError, match="boom"), evaluating(model):
        raise RuntimeError("boom")
    assert flags(model) == before


def test_flags_come_back_when_entering_fails_half_way() -> None:
    class Stubborn(nn.Module):
        def train(self, mode: bool = True) -> "Stubborn":
            raise RuntimeError("will not")

    model = mixed_model()
    before = flags(model)
    with pytest.raises(RuntimeError, match="will not"), evaluating(model, Stubborn()):
        pass
    assert flags(model) == before


def test_the_same_or_sharing_models_twice_and_nested() -> None:
    model = mixed_model()
    wrapper = nn.Sequential(model, nn.Linear(2, 2))
    before = flags(model, wrapper)
    with evaluating(model, wrapper, model), evaluating(model):
        assert not any(flags(model, wrapper))
    assert flags(model, wrapper) == before


def test_running_statistics_do_not_move_inside() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3)).train()
    with evaluating(model):
        model(torch.randn(8, 3))
    assert torch.equal(model[0].running_mean, torch.zeros(3))
    assert int(model[0].num_batches_tracked) == 0


def test_only_batch_norm_trains_inside_batch_normalising() -> None:
    model = mixed_model()
    before = flags(model)
    with batch_normalising(model):
        assert flags(model) == [False, False, True, False, False, False]
    assert flags(model) == before
