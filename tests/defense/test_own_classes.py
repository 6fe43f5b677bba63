"""A defence, a detector, a threshold and a history of one's own, named where they are used."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedmd import ConfigError, Pipeline
from fedmd.config import DefenseConfig
from fedmd.registry import resolving
from fedmd.types import Action

OWN = """
import torch
from fedmd import Defense, Detector, Section
from fedmd.defense.base import Decision
from fedmd.defense.history import HistoryPlugin, Snapshot
from fedmd.defense.samples.thresholds import Threshold
from fedmd.types import Action

class Dim(Defense):
    '''Suspicious samples are learned from, darker.'''
    uses_threshold = True
    class Params(Section):
        factor: float
    def decide(self, batch):
        x = torch.where(batch.suspicious[:, None, None, None], self.params.factor * batch.x, batch.x)
        actions = torch.where(batch.suspicious, Action.CORRECTED, Action.ACCEPTED)
        return Decision(x, actions, torch.zeros_like(actions), batch.before)

class Brightness(Detector):
    '''The mean pixel, to a power.'''
    unit = "grey"
    class Params(Section):
        power: int = 1
    def __call__(self, outputs):
        return outputs.x.flatten(1).mean(1) ** self.params.power

class Half(Threshold):
    '''Half the largest trusted score.'''
    def __call__(self, step, trusted):
        return float(trusted().max()) / 2

class First(HistoryPlugin):
    '''The first model shown.'''
    def build(self, snapshots):
        return (Snapshot(),)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_defense.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_defense"


def test_they_work_together(own: str) -> None:
    levels = torch.tensor([0.2, 0.4, 0.6, 1.0])
    x, y = levels[:, None, None, None].expand(4, 1, 2, 2).clone(), torch.arange(4) % 2
    pipeline = Pipeline.from_config(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 2)),
        trusted=(x, y),
        defense={
            **{"name": "custom", "factory": f"{own}:Dim", "params": {"factor": 0.5}},
            **{"detector": "custom", "detector_factory": f"{own}:Brightness", "detector_params": {"power": 2}},
        },
        threshold={"name": "custom", "factory": f"{own}:Half"},
        history={"name": "custom", "factory": f"{own}:First"},
    )
    screened = pipeline.screen(x, y)
    assert screened.verdicts.threshold == 0.5
    assert screened.verdicts.before.tolist() == pytest.approx([0.04, 0.16, 0.36, 1.0])
    assert screened.verdicts.actions.tolist() == [Action.ACCEPTED] * 3 + [Action.CORRECTED]
    assert screened.x[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.5])
    assert set(screened.verdicts.baselines) >= {"confidence", "lid"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"defense": "dcs"}, "defense.name: 'dcs' is not one of at, "),
        ({"defense": {"name": "dsc", "radius": -1}}, "defense.radius: input should be greater than or equal to 0, not"),
        ({"defense": {"name": "drop", "radius": 1}}, "defense.radius: unknown key; allowed here: name, detector, "),
        ({"defense": "discrepancy_screening"}, "defense.name: discrepancy_screening is for mode=update, not"),
        ({"history": {"name": "lag_and_start"}}, "history.name: lag_and_start is for mode=update, not"),
        ({"history": "snapshot"}, "history.epoch: must be at most 0, the number of snapshots there are."),
        (
            {"threshold": {"name": "fixed"}, "defense": {"name": "drop", "stopping": "x"}},
            "defense.stopping: 'x' is not",
        ),
        ({"defense": {"name": "custom", "factory": "own_defense:Dim"}}, "defense.params.factor: a value is required."),
        ({"defense": {"name": "custom", "factory": "own_defense:Half"}}, "defense.factory: own_defense:Half must be"),
    ],
)
def test_wrong_settings_are_said_in_one_sentence(own: str, settings: dict[str, Any], sentence: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ConfigError) as caught:
        Pipeline.from_config(
            model, **{"history": "lag", "trusted": (torch.rand(4, 1, 2, 2), torch.ones(4)), **settings}
        )
    assert str(caught.value).startswith(sentence)


def test_a_node_does_not_import_a_detector_that_its_server_names(own: str) -> None:
    given = {"name": "drop", "detector": "custom", "detector_factory": f"{own}:Brightness"}
    with resolving("installed"):
        config = DefenseConfig.of(given)
    with pytest.raises(ConfigError, match="was not looked up"):
        config.make_slot("detector")
