"""Colluders in one process: what they share, where they stay, and when they stop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedmd.attacks import coalition as module
from fedmd.attacks import trigger_batch
from fedmd.attacks.catalogue import accumulative
from fedmd.attacks.coalition import Coalition, coalition_of
from fedmd.attacks.pixels import quantised
from fedmd.attacks.shared_cache import LASTING
from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.models import model_for
from fedmd.types import StreamBatch

Make = Callable[..., RunConfig]
ATTACK = {
    "attack": {"name": "accumulative", "fraction": 0.6, "radius": 0.1},
    "federation": {"clients": 5},
    "model": {"name": "cnn", "width": 2},
}
CLEAN, FIRST, TRIGGER, RECOVERY = 1, 2, 4, 5  # rounds of conftest's 2 clean, 2 accumulative, 1 trigger, 1 recovery


@pytest.fixture
def build(make_config: Make, tmp_path: Path) -> Callable[..., tuple[Coalition, FederatedData, nn.Module]]:
    def made(changes: dict[str, Any] | None = None, board: str = "board") -> tuple[Coalition, FederatedData, nn.Module]:
        data = load_federated_data(make_config({**ATTACK, **(changes or {})}))
        team = coalition_of(data, tmp_path / board)
        return team, data, model_for(data.config.model, data.images, 0)

    return made


Build = Callable[..., tuple[Coalition, FederatedData, nn.Module]]


def other_model(data: FederatedData) -> nn.Module:
    return model_for(data.config.model, data.images, 99)


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


# -- bytes ------------------------------------------------------------------------------------------------------


@settings(deadline=None, derandomize=True)
@given(
    clean=st.lists(st.integers(0, 255), min_size=1, max_size=20),
    radius=st.floats(0, 1),
    shift=st.floats(-1, 1),
)
def test_quantised_stays_in_the_ball_and_near_x(clean: list[int], radius: float, shift: float) -> None:
    start = np.array(clean, np.uint8).reshape(-1, 1, 1, 1)
    x = (torch.from_numpy(start).double() / 255 + shift * radius).clamp(0, 1)
    sent = quantised(x, start, radius)
    assert sent.dtype == np.uint8 and sent.shape == start.shape
    assert distance(sent, start) / 255 <= radius + 1e-8
    assert np.abs(sent / 255 - x.numpy()).max() < 1 / 255 + 1e-8  # at most one level is lost to rounding and radius


@pytest.mark.parametrize(("radius", "limit"), [(0.2, 51), (0.3, 76), (0.1, 25), (8 / 255, 8), (0.0, 0), (1.0, 255)])
def test_quantised_uses_the_whole_ball(radius: float, limit: int) -> None:
    start = np.full((1, 1, 1, 2), 100, np.uint8)
    far = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    assert quantised(far, start, radius).ravel().tolist() == [max(0, 100 - limit), min(255, 100 + limit)]


# -- what a member sends ------------------------------------------------------------------------------------------


def test_members_are_honest_outside_the_attack(build: Build) -> None:
    team, data, model = build()
    for round in (0, CLEAN, RECOVERY):
        assert not team.is_active(round)
        batch = data.streams.batch(team.members[0], round)
        assert team.poison(batch, model) is batch


def test_accumulative_batches_are_the_members_own_within_the_radius(build: Build) -> None:
    team, data, model = build()
    assert len(team.members) == 3
    for client in team.members:
        honest = data.streams.batch(client, FIRST)
        sent = team.poison(honest, model)
        assert (sent.client, sent.round) == (client, FIRST)
        assert np.array_equal(sent.labels, honest.labels)
        assert 0 < distance(sent.images, honest.images) <= 25  # floor(0.1 * 255)


def test_slices_tile_one_trigger_batch(build: Build) -> None:
    team, data, model = build()
    sent = [team.poison(data.streams.batch(client, TRIGGER), model) for client in team.members]
    clean = [data.streams.batch(client, TRIGGER) for client in team.members]
    whole = team.cache.once("trigger", LASTING, lambda: pytest.fail("not shared"))["x"]
    levels = np.concatenate([batch.images for batch in sent]).astype(int)
    assert np.abs(levels / 255 - whole.numpy()).max() <= 1 / 255 + 1e-6
    for mine, honest in zip(sent, clean, strict=True):
        assert np.array_equal(mine.labels, honest.labels)
        assert 0 < distance(mine.images, honest.images) <= 25


SAMPLED = {"federation": {"clients": 40, "clients_per_round": 6}}


def test_the_trigger_batch_is_what_those_asked_in_its_round_can_send(build: Build) -> None:
    team, data, model = build(SAMPLED)
    asked = [client for client in sample_clients(data.config, TRIGGER) if team.includes(client)]
    assert len(team.members) == 24 and 1 < len(asked) <= 6
    sent = [team.poison(data.streams.batch(client, TRIGGER), model) for client in asked]
    shared = team.cache.once("trigger", LASTING, lambda: pytest.fail("not shared"))
    assert len(shared["x"]) == len(asked) * data.config.stream.batch_size
    for batch in sent:  # each sends its own data, moved
        honest = data.streams.batch(batch.client, TRIGGER)
        assert np.array_equal(batch.labels, honest.labels)
        assert 0 < distance(batch.images, honest.images) <= 25


@pytest.mark.parametrize("samples", [1, 6, 10])
def test_trigger_samples_bound_it_and_are_sent_again_and_again(build: Build, samples: int) -> None:
    team, data, model = build({"attack": {**ATTACK["attack"], "trigger_samples": samples}})
    honest = [data.streams.batch(client, TRIGGER) for client in team.members]
    sent = [team.poison(batch, model) for batch in honest]
    labels = np.concatenate([batch.labels for batch in honest])[:samples]
    expected = np.resize(labels, len(sent) * 4)  # repeats
    assert np.concatenate([batch.labels for batch in sent]).tolist() == expected.tolist()
    images = np.concatenate([batch.images for batch in sent])
    assert np.array_equal(images, np.resize(images[:samples], images.shape))
    assert len(team.cache.once("trigger", LASTING, lambda: pytest.fail("not shared"))["x"]) == samples


def test_a_trigger_round_in_which_no_member_is_asked_still_has_a_direction(build: Build) -> None:
    team, data, model = build({**SAMPLED, "attack": {**ATTACK["attack"], "fraction": 0.025}, "seed": 1})
    (member,) = team.members
    assert member not in sample_clients(data.config, TRIGGER)
    sent = team.poison(data.streams.batch(member, FIRST), model)
    assert distance(sent.images, data.streams.batch(member, FIRST).images) > 0


def test_expensive_things_are_computed_once_and_agreed_on(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    directions: list[tuple[torch.Tensor, ...]] = []

    def counted(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            if name == "craft":
                directions.append(args[3])
            return kernel(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(accumulative, "steering_direction", counted("steer", accumulative.steering_direction))
    monkeypatch.setattr(trigger_batch, "craft_trigger", counted("trigger", trigger_batch.craft_trigger))
    monkeypatch.setattr(accumulative, "craft_accumulative", counted("craft", accumulative.craft_accumulative))
    first, data, model = build()
    second, _, _ = build()  # another process of the same federation: it has but the folder in common
    for round in (FIRST, FIRST + 1):
        for team, client in zip((first, second, first), first.members, strict=True):
            team.poison(data.streams.batch(client, round), model)
    assert (calls.count("trigger"), calls.count("steer"), calls.count("craft")) == (1, 2, 6)
    for member in directions[1:3]:
        assert all(torch.equal(a, b) for a, b in zip(directions[0], member, strict=True))


@pytest.mark.parametrize("kind", ["fixed", "online"])
def test_a_fixed_trigger_stays_and_an_online_one_moves_in_its_ball(build: Build, kind: str) -> None:
    team, data, model = build({"attack": {**ATTACK["attack"], "trigger": kind}, "stream.trigger_rounds": 2})
    batches = [data.streams.batch(client, TRIGGER) for client in team.members]
    clean = np.concatenate([batch.images for batch in batches])
    early = np.concatenate([team.poison(batch, model).images for batch in batches])
    later = [StreamBatch(batch.client, TRIGGER + 1, batch.images, batch.labels) for batch in batches]
    late = np.concatenate([team.poison(batch, other_model(data)).images for batch in later])
    assert np.array_equal(early, late) == (kind == "fixed")
    for crafted in (early, late):
        assert 0 < distance(crafted, clean) <= 25  # an online ball centred on the last trigger would reach 50


def test_nobody_poisons_without_members(build: Build) -> None:
    for changes in ({"attack": {"name": "none"}}, {"attack": {"name": "accumulative", "fraction": 0.0}}):
        team, _, _ = build(changes, board=f"board-{changes['attack']['name']}")
        assert team.members == ()
        assert not any(team.is_active(round) for round in range(6))


def test_their_validation_data_is_nobody_elses(build: Build) -> None:
    _, data, _ = build()
    own = set(data.split.attacker.tolist())
    others = (data.split.test, data.split.trusted, data.split.burn_in, data.split.stream)
    assert own and all(own.isdisjoint(part.tolist()) for part in others)


# -- when they stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([0.10, 0.11, 0.12, 0.13, 0.14], ["accumulative"] * 5 + ["trigger", "recovery"]),  # never: as planned
        ([0.10, 0.11, 0.15, 0.90, 0.90], ["accumulative", "accumulative", "trigger", "recovery", "recovery"]),
        ([0.10, 0.15, 0.10, 0.10, 0.10], ["accumulative", "trigger", "recovery", "recovery", "recovery"]),
        ([0.50, 0.10, 0.14, 0.51, 0.56], ["accumulative"] * 4 + ["trigger", "recovery"]),  # against the start
    ],
)
def test_stop_rule(build: Build, monkeypatch: pytest.MonkeyPatch, errors: list[float], expected: list[str]) -> None:
    """stop_error_rise 0.05: the trigger comes in the round in which the error has risen by 5 points, or as planned."""
    changes = {"stream.clean_rounds": 0, "stream.accumulative_rounds": 5, "stream.recovery_rounds": 3}
    team, data, model = build({"attack": {**ATTACK["attack"], "stop_error_rise": 0.0499}, **changes})
    monkeypatch.setattr(module, "accuracy", lambda *args: 1 - errors[now])
    phases, sent_by_members = [], []
    for now in range(len(expected)):
        honest = [data.streams.batch(client, now) for client in team.members]
        if team.is_active(now):
            sent = [team.poison(batch, model) for batch in honest]
            sent_by_members.append([not np.array_equal(a.images, b.images) for a, b in zip(sent, honest, strict=True)])
        phases.append(team.phase(now))
    assert phases == expected
    assert all(all(round) for round in sent_by_members)
    assert len(sent_by_members) == expected.count("accumulative") + expected.count("trigger")


def test_own_error_is_measured_on_own_data(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    team, data, model = build({"attack": {**ATTACK["attack"], "stop_error_rise": 0.05}})
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(module, "accuracy", lambda model, x, y: seen.append(x) or 0.5)
    team.poison(data.streams.batch(team.members[0], FIRST), model)
    assert torch.equal(seen[0], data.images.take(data.split.attacker).tensors()[0])
