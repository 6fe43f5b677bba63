"""Historical models against plain lists of states."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fedmd.config import ConfigError, HistoryConfig
from fedmd.defense.history import Ema, History, Lag, Snapshot, State
from fedmd.storage import load_tree, save_tree


def net(seed: int = 0) -> nn.Module:
    """With floating-point and integer buffers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 3))


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(found: State, state: State) -> bool:
    return found.keys() == state.keys() and all(torch.equal(found[name], state[name]) for name in state)


def step(model: nn.Module, number: int) -> None:
    """The model moves in place, as under an optimizer, and so do its batch-norm buffers."""
    model.train()
    model(torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(number)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * (number + 1))


def walk(history: History, versions: int, model: nn.Module | None = None) -> list[State]:
    """Observe a model and `versions` - 1 steps of it; its states."""
    model, states = model or net(), []
    for number in range(versions):
        history.observe(model.state_dict())
        states.append(state_of(model))
        step(model, number)
    return states


def test_a_snapshot_never_moves() -> None:
    given, first = Snapshot(net(7).state_dict()), Snapshot()
    walk(given, 4)
    states = walk(first, 4)
    assert same(given.state, state_of(net(7))) and same(first.state, states[0])


@pytest.mark.parametrize("lag", [0, 1, 2, 5])
def test_a_lag_is_the_state_so_many_versions_ago(lag: int) -> None:
    history, model = Lag(lag), net()
    states = []
    for now in range(9):
        states += walk(history, 1, model)
        assert same(history.state, states[max(0, now - lag)]), now


def test_an_average_by_hand() -> None:
    """0.75 * average + 0.25 * current for every floating-point entry; counters are the current ones."""
    history = Ema(0.75)
    states = walk(history, 5)
    expected = {name: tensor.double() for name, tensor in states[0].items()}
    for state in states[1:]:
        expected = {name: 0.75 * expected[name] + 0.25 * state[name].double() for name in expected}
    for name, tensor in history.state.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), expected[name], rtol=1e-5, atol=1e-6), name
        else:
            assert torch.equal(tensor, states[-1][name])


def test_an_average_is_torchs_own_to_the_bit() -> None:
    model, history = net(), Ema(0.9)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)  # type: ignore[no-untyped-call]
    for number in range(6):
        history.observe(model.state_dict())
        average.update_parameters(model)
        step(model, number)
    floating = [name for name, tensor in history.state.items() if tensor.is_floating_point()]
    assert all(torch.equal(history.state[name], average.module.state_dict()[name]) for name in floating)


HISTORIES: dict[str, Callable[[], History]] = {
    "snapshot": lambda: Snapshot(net(7).state_dict()),
    "first": Snapshot,
    "lag": lambda: Lag(2),
    "ema": lambda: Ema(0.7),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_the_callers_tensors_may_be_overwritten(name: str) -> None:
    history, model = HISTORIES[name](), net()
    history.observe(model.state_dict())
    before = {key: tensor.clone() for key, tensor in history.state.items()}
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(99)
    assert same(history.state, before)


@pytest.mark.parametrize("name", HISTORIES)
def test_a_state_that_has_changed_is_another_object(name: str) -> None:
    history, model = HISTORIES[name](), net()
    history.observe(model.state_dict())
    for number in range(5):
        before, values = history.state, {key: tensor.clone() for key, tensor in history.state.items()}
        step(model, number)
        history.observe(model.state_dict())
        assert same(history.state, values) == (history.state is before)


def test_memory_is_bounded() -> None:
    """Tensors alive after 12 versions are as many as after 5 (a lag of 2 is full then)."""

    def alive() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    model, histories = net(), [build() for build in HISTORIES.values()]
    for history in histories:
        walk(history, 5, model)
    before = alive()
    for history in histories:
        walk(history, 7, model)
    assert alive() <= before


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_history_goes_on_where_it_was(name: str, cut: int, tmp_path: Path) -> None:
    """Bit for bit, buffers included, through a file; and what was restored does not change with what was saved."""
    versions = [state_of(net(seed)) for seed in range(6)]
    whole, half, rest = (HISTORIES[name]() for _ in range(3))
    for version in versions:
        whole.observe(version)
    for version in versions[:cut]:
        half.observe(version)
    save_tree(tmp_path / "state", half.save())
    rest.observe(versions[0])  # as a pipeline does before it is told to go on
    rest.restore(load_tree(tmp_path / "state"))
    half.observe(state_of(net(50)))
    for version in versions[cut:]:
        rest.observe(version)
    assert same(rest.state, whole.state)


def test_what_a_configuration_asks_for() -> None:
    snapshots = [state_of(net(seed)) for seed in range(3)]

    def states(**settings: object) -> list[State]:
        histories = HistoryConfig.model_validate(settings).make().build(snapshots)
        for history in histories:
            for seed in range(10, 14):
                history.observe(net(seed).state_dict())
        return [history.state for history in histories]

    for epoch in (1, 2, 3):
        (found,) = states(name="snapshot", epoch=epoch)
        assert same(found, snapshots[epoch - 1])
    (lagging,) = states(name="lag", lag=1)
    assert same(lagging, state_of(net(12)))
    (average,) = states(name="ema", decay=1e-6)
    assert torch.allclose(average["3.bias"], net(13).state_dict()["3.bias"], atol=1e-4)
    with pytest.raises(ConfigError, match=r"history\.epoch: must be at most 3"):
        states(name="snapshot", epoch=4)
    before, start = states(name="lag_and_start", lag=2)
    assert same(before, state_of(net(11))) and same(start, snapshots[-1])


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="lag"):
        Lag(-1)
    with pytest.raises(ValueError, match="decay"):
        Ema(1.0)
