"""What members of each attack send, round by round, against what they would have sent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from fedmd.attacks.coalition import Coalition, coalition_of
from fedmd.config import RunConfig
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.models import model_for
from fedmd.registry import ATTACKS
from fedmd.runs.compose import choices
from fedmd.types import StreamBatch

Make = Callable[..., RunConfig]
Build = Callable[..., tuple[Coalition, FederatedData, nn.Module]]
PHASES = ["clean", "clean", "accumulative", "accumulative", "trigger", "recovery"]
FIRST, SECOND, TRIGGER = 2, 3, 4
LIMIT = 25  # floor(0.1 * 255)
STREAMED = [plugin.name for plugin in ATTACKS.own() if "stream" in plugin.modes]


@pytest.fixture
def build(make_config: Make, tmp_path: Path) -> Build:
    def made(name: str, **settings: Any) -> tuple[Coalition, FederatedData, nn.Module]:
        radius = {"radius": 0.1} if "radius" in ATTACKS.resolve(name).Params.model_fields else {}
        attack = {"name": name, "fraction": 0.6, **radius, **settings}
        data = load_federated_data(make_config({"attack": attack, "model": {"name": "cnn", "width": 2}}))
        team = coalition_of(data, tmp_path / name)
        return team, data, model_for(data.config.model, data.images, 0)

    return made


def sent(built: tuple[Coalition, FederatedData, nn.Module], round: int) -> list[tuple[StreamBatch, StreamBatch]]:
    """(honest, sent) batch of every member."""
    team, data, model = built
    honest = [data.streams.batch(client, round) for client in team.members]
    return [(batch, team.poison(batch, model)) for batch in honest]


def test_every_attack_is_an_option() -> None:
    assert [*ATTACKS.names(), "custom"] == sorted(choices("attack"), key=lambda name: (name == "custom", name))


@pytest.mark.parametrize("name", STREAMED)
def test_members_poison_in_the_rounds_of_their_attack_and_all_runs_have_the_same_phases(
    build: Build, name: str
) -> None:
    built = build(name)
    expected = {"none": [], "trigger_only": [TRIGGER]}.get(name, [FIRST, SECOND, TRIGGER])
    assert [round for round in range(6) if built[0].is_active(round)] == expected
    assert [built[0].phase(round) for round in range(6)] == PHASES
    for round in set(range(6)) - set(expected):
        assert all(batch is honest for honest, batch in sent(built, round))
    for round in expected:
        for honest, batch in sent(built, round):
            assert (batch.client, batch.round, len(batch)) == (honest.client, round, len(honest))
            assert batch.images.dtype == np.uint8 and batch.labels.dtype == np.int64
            same = np.array_equal(batch.images, honest.images) and np.array_equal(batch.labels, honest.labels)
            assert not same


def test_trigger_only_sends_the_accumulative_attacks_own_trigger(build: Build) -> None:
    alone, whole = build("trigger_only"), build("accumulative")
    for (_, mine), (_, theirs) in zip(sent(alone, TRIGGER), sent(whole, TRIGGER), strict=True):
        assert np.array_equal(mine.images, theirs.images) and np.array_equal(mine.labels, theirs.labels)


@pytest.mark.parametrize("round", [FIRST, TRIGGER])
def test_label_flip(build: Build, round: int) -> None:
    for honest, batch in sent(build("label_flip"), round):
        assert np.array_equal(batch.images, honest.images)
        assert batch.labels.tolist() == [9 - label for label in honest.labels]


@pytest.mark.parametrize("round", [FIRST, TRIGGER])
def test_noise(build: Build, round: int) -> None:
    pairs = sent(build("noise"), round)
    moves = [batch.images.astype(int) - honest.images for honest, batch in pairs]
    for (honest, batch), move in zip(pairs, moves, strict=True):
        assert np.array_equal(batch.labels, honest.labels)
        assert LIMIT - 3 <= np.abs(move).max() <= LIMIT
    assert not np.array_equal(moves[0], moves[1])  # every member and round draws its own
    again = [batch.images for _, batch in sent(build("noise"), round)]
    assert all(np.array_equal(a, batch.images) for a, (_, batch) in zip(again, pairs, strict=True))


@pytest.mark.parametrize(("share", "count"), [(0.5, 2), (0.25, 1), (1.0, 4)])
def test_backdoor_poisons_the_first_of_a_batch_and_the_truth_knows(build: Build, share: float, count: int) -> None:
    built = build("backdoor", poisoned_share=share, patch_size=2, target=7)
    assert built[0].poisoned_samples == count
    for honest, batch in sent(built, FIRST):
        assert batch.labels.tolist() == [7] * count + honest.labels[count:].tolist()
        assert (batch.images[:count, :, -2:, -2:] == 255).all()
        assert np.array_equal(batch.images[count:], honest.images[count:])
        assert np.array_equal(batch.images[:count, :, :-2], honest.images[:count, :, :-2])


def test_of_other_attacks_a_whole_batch_is_poisoned(build: Build) -> None:
    assert all(build(name)[0].poisoned_samples == 4 for name in STREAMED if name != "backdoor")
