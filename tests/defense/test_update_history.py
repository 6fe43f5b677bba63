"""The historical state: which round's, in closed form, and never the caller's own tensors."""

import pytest
import torch
from torch import Tensor

from fedmd.defense.updates.history import StateEma, StateLag, StateSnapshot


def state(value: float) -> dict[str, Tensor]:
    return {"w": torch.full((2,), float(value)), "n": torch.tensor(int(value))}


def test_lag_is_the_state_of_so_many_rounds_ago_and_the_oldest_until_then() -> None:
    history = StateLag(2)
    assert [float(history.observe(state(t))["w"][0]) for t in range(6)] == [0, 0, 0, 1, 2, 3]
    zero = StateLag(0)
    assert [float(zero.observe(state(t))["w"][0]) for t in range(3)] == [0, 1, 2]


def test_ema_in_closed_form() -> None:
    history = StateEma(0.75)
    found = [history.observe(state(t)) for t in (4, 8, 0)][-1]
    assert float(found["w"][1]) == pytest.approx(0.75 * (0.75 * 4 + 0.25 * 8) + 0.25 * 0)
    assert int(found["n"]) == 0


def test_snapshot_stays() -> None:
    assert float(StateSnapshot(state(7)).observe(state(1))["w"][0]) == 7
    first = StateSnapshot()
    assert [float(first.observe(state(t))["w"][0]) for t in (3, 4)] == [3, 3]


@pytest.mark.parametrize("history", [StateLag(1), StateEma(0.5), StateSnapshot()])
def test_the_callers_tensors_may_be_overwritten(history: StateLag | StateEma | StateSnapshot) -> None:
    mine = state(1)
    history.observe(mine)
    mine["w"].fill_(99)
    assert float(history.observe(state(1))["w"][0]) == 1


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="lag"):
        StateLag(-1)
    with pytest.raises(ValueError, match="decay"):
        StateEma(1.0)
