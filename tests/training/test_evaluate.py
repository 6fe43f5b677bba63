"""Accuracy, counted by hand."""

import pytest
import torch
from torch import Tensor, nn

from fedmd.training.evaluate import accuracy


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
