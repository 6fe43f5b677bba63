"""flatten and unflatten are inverses; only parameters are attacked."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmd.attacks.vectors import flatten, parameters_only, unflatten


def test_entries_follow_one_another_and_integers_stay_out() -> None:
    tensors = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "count": torch.tensor(7), "b": torch.tensor(5.0)}
    assert flatten(tensors).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    back = unflatten(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]), tensors)
    assert list(back) == ["w", "count", "b"]
    assert back["w"].tolist() == [[5.0, 4.0], [3.0, 2.0]]
    assert back["b"].shape == () and back["b"].item() == 1.0
    assert back["count"] is tensors["count"]


@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=4), st.integers(0, 99))
def test_back_and_forth_is_the_identity(shapes: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {str(i): torch.randn(shape, generator=generator) for i, shape in enumerate(shapes)}
    back = unflatten(flatten(tensors), tensors)
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_each_entry_keeps_its_dtype() -> None:
    tensors = {"half": torch.ones(2, dtype=torch.bfloat16), "single": torch.full((1,), 1 + 2**-20)}
    back = unflatten(flatten(tensors), tensors)
    assert back["half"].dtype == torch.bfloat16
    assert torch.equal(back["single"], tensors["single"])


def test_the_order_is_the_models_and_buffers_are_left_out() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    shuffled: dict[str, Tensor] = dict(reversed(model.state_dict().items()))
    chosen = parameters_only(model, shuffled)
    assert list(chosen) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert torch.equal(flatten(chosen), nn.utils.parameters_to_vector(model.parameters()))


def test_a_vector_of_another_length_or_nothing_to_flatten_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[2\], got \[3\]"):
        unflatten(torch.zeros(3), {"w": torch.zeros(2), "n": torch.tensor(1)})
    with pytest.raises(ValueError, match="at least one"):
        flatten({"n": torch.tensor(1)})
