"""Historical models against plain lists of states."""

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedmd.config import HistoryConfig
from fedmd.defense.history import EmaHistory, History, LagHistory, SnapshotHistory, build_history
from fedmd.storage import load_tree, save_tree

State = dict[str, torch.Tensor]


def net() -> nn.Module:
    """With floating-point and integer buffers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))


def state_of(model: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: nn.Module, state: State) -> bool:
    found = model.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def walk(model: nn.Module, history: History, steps: int) -> list[State]:
    """Let the model move `steps` times (in place, as an optimizer does); its states, the first included."""
    states = [state_of(model)]
    for step in range(steps):
        model.train()
        model(torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(step)))  # moves the batch-norm buffers
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * (step + 1))
        history.observe(model)
        states.append(state_of(model))
    return states


def test_a_snapshot_never_moves() -> None:
    model = net()
    history = SnapshotHistory(model)
    first = walk(model, history, 3)[0]
    assert same(history.model, first)


@pytest.mark.parametrize("lag", [1, 2, 5])
def test_a_lag_is_the_state_so_many_steps_ago(lag: int) -> None:
    model = net()
    history = LagHistory(model, lag)
    assert same(history.model, state_of(model))
    states = [state_of(model)]
    for now in range(1, 9):
        states.append(walk(model, history, 1)[-1])
        assert same(history.model, states[max(0, now - lag)]), now


def test_an_average_by_hand() -> None:
    """0.75 * average + 0.25 * current for every parameter and floating-point buffer."""
    model = net()
    history = EmaHistory(model, 0.75)
    assert same(history.model, state_of(model))
    states = walk(model, history, 4)
    expected = {name: tensor.double() for name, tensor in states[0].items()}
    for state in states[1:]:
        expected = {name: 0.75 * expected[name] + 0.25 * state[name].double() for name in expected}
    for name, tensor in history.model.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), expected[name], rtol=1e-5, atol=1e-6), name
    assert not same(history.model, states[-1])


def test_only_the_average_of_the_last_step_counts_at_small_decay() -> None:
    model = net()
    history = EmaHistory(model, 1e-6)
    last = walk(model, history, 3)[-1]
    for name, tensor in history.model.state_dict().items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor, last[name], atol=1e-4), name


HISTORIES = [
    HistoryConfig(name="snapshot", epoch=1),
    HistoryConfig(name="lag", lag=3),
    HistoryConfig(name="ema", decay=0.5),
]


@pytest.mark.parametrize("config", HISTORIES, ids=lambda config: config.name)
def test_history_is_frozen_and_a_copy(config: HistoryConfig) -> None:
    model = net()
    model.train()
    history = build_history(config, model, [state_of(model)])
    walk(model, history, 5)
    assert not any(parameter.requires_grad for parameter in history.model.parameters())
    assert not any(module.training for module in history.model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.training
    addresses = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert addresses.isdisjoint(tensor.data_ptr() for tensor in history.model.state_dict().values())


@pytest.mark.parametrize("config", HISTORIES, ids=lambda config: config.name)
def test_memory_is_bounded(config: HistoryConfig) -> None:
    """Tensors alive after 30 steps are as many as after 10 (a lag of 3 is full then)."""

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    model = net()
    history = build_history(config, model, [state_of(model)])
    walk(model, history, 10)
    before = alive()
    walk(model, history, 20)
    assert alive() <= before


def test_a_snapshot_is_taken_by_its_epoch_from_one() -> None:
    final = net()
    snapshots = []
    for epoch in range(3):
        state = copy.deepcopy(final.state_dict())
        state["3.bias"] = torch.full((3,), float(epoch + 1))
        snapshots.append(state)
    for epoch in (1, 2, 3):
        history = build_history(HistoryConfig(name="snapshot", epoch=epoch), final, snapshots)
        assert history.model.state_dict()["3.bias"].tolist() == [epoch] * 3


def test_lag_and_average_start_at_the_end_of_burn_in() -> None:
    final = net()
    early = {name: torch.zeros_like(tensor) for name, tensor in final.state_dict().items()}
    for config in HISTORIES[1:]:
        assert same(build_history(config, final, [early, early]).model, state_of(final))


STATES = {
    "snapshot": lambda model: SnapshotHistory(model),
    "lag": lambda model: LagHistory(model, 2),
    "ema": lambda model: EmaHistory(model, 0.7),
}


@pytest.mark.parametrize("name", STATES)
@pytest.mark.parametrize("cut", range(5))
def test_a_history_goes_on_where_it_was(name: str, cut: int, tmp_path: Path) -> None:
    """Bit for bit, buffers included, through a file; and what was restored does not change with what was saved."""

    def moved(step: int) -> nn.Module:
        torch.manual_seed(step)
        return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))

    def observed(history: Any, steps: range) -> dict[str, torch.Tensor]:
        for step in steps:
            history.observe(moved(step))
        return history.model.state_dict()  # type: ignore[no-any-return]

    build = STATES[name]
    whole = observed(build(moved(9)), range(5))
    half, rest = build(moved(9)), build(moved(9))
    observed(half, range(cut))
    save_tree(tmp_path / "state", half.state())
    rest.restore(load_tree(tmp_path / "state"))
    observed(half, range(50, 52))
    found = observed(rest, range(cut, 5))
    assert all(torch.equal(found[key], tensor) for key, tensor in whole.items())
