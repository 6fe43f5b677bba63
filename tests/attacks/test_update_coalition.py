"""What members of a coalition send in mode=update, against their honest training done by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedmd.attacks.accumulative_update import accumulative_push, bounded
from fedmd.attacks.adaptive import discrepancy_gradient
from fedmd.attacks.base import Situation
from fedmd.attacks.coalition import coalition_of
from fedmd.attacks.vectors import flatten, parameters_only
from fedmd.config import ConfigError, RunConfig
from fedmd.data.federated import FederatedData, load_federated_data
from fedmd.models import model_for
from fedmd.registry import ATTACKS
from fedmd.training.local import floating, train_client
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]
ACCUMULATIVE, TRIGGER = 2, 4
UPDATES = [plugin.name for plugin in ATTACKS.own() if "update" in plugin.modes and plugin.name != "none"]


class Setting:
    """One attack's coalition of two among five clients, and a server state."""

    def __init__(self, make_config: Make, folder: Path, **attack: Any) -> None:
        changes = {
            "mode": "update",
            "attack": {"fraction": 0.4, **attack},
            "model": {"name": "resnet_small", "width": 2},
        }
        self.config = make_config({**changes, "local": {"batch_size": 8, "lr": 0.1, "samples": 24}})
        self.data: FederatedData = load_federated_data(self.config)
        self.coalition = coalition_of(self.data, folder)
        self.model = model_for(self.config.model, self.data.images, 3)
        self.start = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def situation(self, round: int = ACCUMULATIVE) -> Situation:
        return Situation(round, self.model, self.start)

    def honest(self, client: int, own: ImageSet | None = None, round: int = ACCUMULATIVE) -> dict[str, Tensor]:
        data = self.data.local.of(client) if own is None else own
        train_client(self.model, self.start, data, self.config, client=client, round=round)
        return {name: tensor.clone() for name, tensor in floating(self.model.state_dict()).items()}

    def delta(self, state: dict[str, Tensor]) -> Tensor:
        return flatten(parameters_only(self.model, state)) - flatten(parameters_only(self.model, self.start))


def close(first: Tensor, second: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_sign_flip_and_its_buffers(make_config: Make, tmp_path: Path) -> None:
    setting = Setting(make_config, tmp_path, name="sign_flip", scale=3.0)
    member = setting.coalition.members[0]
    honest = setting.honest(member)
    sent = setting.coalition.update(member, setting.situation())
    assert list(sent) == list(honest)
    close(setting.delta(sent), -3 * setting.delta(honest))
    for name in honest:
        if "running" in name:
            assert torch.equal(sent[name], honest[name])


@pytest.mark.parametrize("knowledge", ["own", "all"])
def test_ipm_sees_whom_it_may(make_config: Make, tmp_path: Path, knowledge: str) -> None:
    setting = Setting(make_config, tmp_path, name="ipm", knowledge=knowledge, scale=2.0)
    seen = range(5) if knowledge == "all" else setting.coalition.members
    mean = torch.stack([setting.delta(setting.honest(client)) for client in seen]).mean(dim=0)
    for member in setting.coalition.members:
        close(setting.delta(setting.coalition.update(member, setting.situation())), -2 * mean)


def test_label_flip_trains_on_mirrored_labels(make_config: Make, tmp_path: Path) -> None:
    setting = Setting(make_config, tmp_path, name="label_flip")
    member = setting.coalition.members[1]
    own = setting.data.local.of(member)
    mirrored = ImageSet(own.images, 9 - own.labels, 10)
    close(
        setting.delta(setting.coalition.update(member, setting.situation())),
        setting.delta(setting.honest(member, mirrored)),
    )


def test_replacement_trains_on_stamped_images_and_scales(make_config: Make, tmp_path: Path) -> None:
    setting = Setting(make_config, tmp_path, name="replacement", patch_size=2, target=7, poisoned_share=0.5)
    member = setting.coalition.members[0]
    own = setting.data.local.of(member)
    images, labels = own.images.copy(), own.labels.copy()
    images[:12, :, -2:, -2:], labels[:12] = 255, 7
    poisoned = setting.delta(setting.honest(member, ImageSet(images, labels, 10)))
    close(setting.delta(setting.coalition.update(member, setting.situation())), 5 / 2 * poisoned)


def test_accumulative_adds_one_push_of_everybodys(make_config: Make, tmp_path: Path) -> None:
    setting = Setting(make_config, tmp_path, name="accumulative", norm_bound=None)
    pushes = {}
    for round in (ACCUMULATIVE, TRIGGER):
        for member in setting.coalition.members:
            sent = setting.delta(setting.coalition.update(member, setting.situation(round)))
            pushes[round, member] = sent - setting.delta(setting.honest(member, round=round))
    first, second = setting.coalition.members
    for round in (ACCUMULATIVE, TRIGGER):
        torch.testing.assert_close(pushes[round, first], pushes[round, second], rtol=1e-3, atol=1e-5)
        assert float(pushes[round, first].norm()) > 0
    assert not torch.allclose(pushes[ACCUMULATIVE, first], pushes[TRIGGER, first])


def test_a_clean_trigger_is_an_honest_clients_update_and_pushes_have_momentum(
    make_config: Make, tmp_path: Path
) -> None:
    """Two of five: η is 5/2, so that the mean of the round moves by one step of SGD on λS."""
    setting = Setting(make_config, tmp_path, name="accumulative", trigger="clean", trigger_samples=12, norm_bound=None)
    own = setting.coalition._team.own_data
    trigger, validation = own.take(np.arange(12)), own.take(np.arange(12, len(own)))
    first, second = setting.coalition.members
    setting.model.load_state_dict(setting.start)
    step, similarity = accumulative_push(
        setting.model, *trigger.tensors(), *validation.tensors(), rate=0.1 * 0.02, trigger="clean"
    )
    setting.model.load_state_dict(setting.start)
    with torch.no_grad():  # batch-norm statistics: one pass over each part, at the server's parameters
        for part in (trigger, validation):
            setting.model.train()(part.tensors()[0])
    passed = {name: tensor.clone() for name, tensor in setting.model.state_dict().items()}
    for round, velocity in ((ACCUMULATIVE, step), (ACCUMULATIVE + 1, 1.9 * step)):
        for member in (first, second):
            sent = setting.coalition.update(member, setting.situation(round))
            assert float((setting.delta(sent) - 2.5 * velocity).norm()) < 1e-4 * float(velocity.norm()) + 1e-6
            assert all(torch.equal(sent[name], passed[name]) for name in passed if "running" in name)
        assert setting.coalition.cache.notes(round) == {"similarity": pytest.approx(similarity)}
    honest = setting.delta(setting.honest(first, trigger, TRIGGER))
    for member in (first, second):
        close(setting.delta(setting.coalition.update(member, setting.situation(TRIGGER))), honest)


def test_the_velocity_is_what_later_rounds_build_on(make_config: Make, tmp_path: Path) -> None:
    """A coalition whose cache was put back, as after a server's death, sends the same bits."""
    attack = {"name": "accumulative", "trigger": "clean", "trigger_samples": 12, "max_loss_rise": 0.5}
    setting, resumed = (Setting(make_config, tmp_path / place, **attack) for place in ("a", "b"))
    member = setting.coalition.members[0]
    setting.coalition.update(member, setting.situation(ACCUMULATIVE))
    resumed.coalition.cache.folder.mkdir(parents=True)
    resumed.coalition.cache.restore(setting.coalition.cache.state())
    one, other = (each.coalition.update(member, each.situation(ACCUMULATIVE + 1)) for each in (setting, resumed))
    assert all(torch.equal(one[name], other[name]) for name in one)
    fresh = Setting(make_config, tmp_path / "c", **attack)
    anew = fresh.coalition.update(member, fresh.situation(ACCUMULATIVE + 1))
    assert not all(torch.equal(one[name], anew[name]) for name in one)


@pytest.mark.parametrize(
    ("attack", "sentence"),
    [
        ({"trigger": "fixed"}, "attack.trigger: must be clean or reversed in mode=update, not fixed"),
        ({"boost": 2.0}, "attack.boost: is for attack.trigger=clean"),
        ({"trigger": "clean", "trigger_samples": 10_000}, "attack.trigger_samples: must leave the attackers"),
        ({"defense_knowledge": "model"}, "attack.defense_knowledge: is for attack.trigger=clean"),
        (
            {"trigger": "clean", "trigger_samples": 12, "max_discrepancy": 0.1},
            "attack.max_discrepancy: is for attack.defense_knowledge=model_and_threshold",
        ),
        (
            {"trigger": "clean", "trigger_samples": 12, "discrepancy_penalty": 1.0},
            "attack.discrepancy_penalty: is for attack.defense_knowledge=model",
        ),
        (
            {"trigger": "clean", "trigger_samples": 12, "defense_knowledge": "model_and_threshold"},
            "attack.max_discrepancy: must be given with attack.defense_knowledge=model_and_threshold",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    make_config: Make, tmp_path: Path, attack: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Setting(make_config, tmp_path, name="accumulative", **attack)


@pytest.mark.parametrize("name", UPDATES)
def test_whoever_asks_first_changes_nothing(make_config: Make, tmp_path: Path, name: str) -> None:
    """Members on one cache in either order, and each on its own, send the same bits."""
    sent: dict[str, dict[int, dict[str, Tensor]]] = {}
    for place, order in (("a", (0, 1)), ("b", (1, 0)), ("c0", (0,)), ("c1", (1,))):
        setting = Setting(make_config, tmp_path / place, name=name)
        members = [setting.coalition.members[i] for i in order]
        sent[place] = {member: setting.coalition.update(member, setting.situation()) for member in members}
    for member, state in sent["a"].items():
        alone = {**sent["c0"], **sent["c1"]}[member]
        for key, tensor in state.items():
            assert torch.equal(tensor, sent["b"][member][key]) and torch.equal(tensor, alone[key])
            assert bool(tensor.isfinite().all())


def test_the_attack_has_its_phases(make_config: Make, tmp_path: Path) -> None:
    coalition = Setting(make_config, tmp_path, name="alie").coalition
    assert len(coalition.members) == 2
    assert [coalition.is_active(round) for round in range(6)] == [False, False, True, True, True, False]
    assert not Setting(make_config, tmp_path, name="none").coalition.is_active(ACCUMULATIVE)


@pytest.mark.parametrize("round", [ACCUMULATIVE, TRIGGER])
def test_who_knows_the_threshold_stays_below_it(make_config: Make, tmp_path: Path, round: int) -> None:
    """What is sent is that of the attack without a limit, halved as often as it takes on the attackers' own data."""
    attack = {"name": "accumulative", "trigger": "clean", "trigger_samples": 12, "norm_bound": None, "boost": 50.0}
    free = Setting(make_config, tmp_path / "free", **attack, rate=8.0)
    member = free.coalition.members[0]
    state = free.coalition.update(member, free.situation(round))
    whole, own = free.delta(state), free.coalition._team.own_data
    x, _ = own.take(np.arange(12, len(own))).tensors()

    def answers(state: dict[str, Tensor], share: float) -> Tensor:
        free.model.load_state_dict({**free.start, **state})
        start = nn.utils.parameters_to_vector([free.start[name] for name, _ in free.model.named_parameters()])
        nn.utils.vector_to_parameters(start + share * whole, free.model.parameters())
        return free.model.eval()(x).detach().log_softmax(dim=1)

    p = answers(free.start, 0)
    half, quarter = (float((p.exp() * (p - answers(state, share))).sum(dim=1).mean()) for share in (1 / 2, 1 / 4))
    assert half > quarter > 0  # (5), written out
    known = {"defense_knowledge": "model_and_threshold", "max_discrepancy": (half + quarter) / 2}
    bounded = Setting(make_config, tmp_path / "bounded", **attack, **known, rate=8.0)
    sent = bounded.delta(bounded.coalition.update(member, bounded.situation(round)))
    close(sent, whole / 4)


def test_who_knows_the_model_pays_for_discrepancy(make_config: Make, tmp_path: Path) -> None:
    """A push of μ against ∇D beside the one of λ; nothing of a trigger that costs more than all errors are worth."""
    attack = {"name": "accumulative", "trigger": "clean", "trigger_samples": 12, "norm_bound": None, "scale": 1.0}
    free = Setting(make_config, tmp_path / "free", **attack)
    known = {"defense_knowledge": "model", "discrepancy_penalty": 50.0}
    priced = Setting(make_config, tmp_path / "priced", **attack, **known)
    member = free.coalition.members[0]
    first = [each.delta(each.coalition.update(member, each.situation(ACCUMULATIVE))) for each in (free, priced)]
    assert float((first[0] - first[1]).norm()) < 1e-4 * float(first[0].norm())  # θ_h is θ_t: D and ∇D are 0
    moved = {n: t + 0.05 if t.is_floating_point() and "running" not in n else t for n, t in priced.start.items()}
    later = [
        each.delta(each.coalition.update(member, Situation(ACCUMULATIVE + 1, each.model, moved)))
        for each in (free, priced)
    ]
    validation = priced.coalition._team.own_data.take(np.arange(12, len(priced.coalition._team.own_data)))
    x, _ = validation.tensors()
    answers = []
    for state in (priced.start, moved):
        priced.model.load_state_dict(state)
        answers.append(priced.model.eval()(x).detach())
    uphill = discrepancy_gradient(priced.model, answers[0][None], x)
    assert float(uphill.norm()) > 1e-3
    expected = -0.1 * 50.0 * bounded(uphill, 10.0)
    assert float((later[1] - later[0] - expected).norm()) < 1e-3 * float(expected.norm())
    dear, cheap = (
        Setting(make_config, tmp_path / f"{mu}", **attack, defense_knowledge="model", discrepancy_penalty=mu)
        for mu in (1e9, 0.0)
    )
    assert float(dear.delta(dear.coalition.update(member, dear.situation(TRIGGER))).norm()) < 1e-6
    assert float(cheap.delta(cheap.coalition.update(member, cheap.situation(TRIGGER))).norm()) > 1e-3
