"""A model with dropout repeats too: nothing depends on what ran before in the process."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from fedmd.config import RunConfig
from fedmd.data.split import split_images
from fedmd.rounds.learner import OnlineLearner
from fedmd.training.burn_in import burn_in
from fedmd.training.device import FLOAT32
from fedmd.types import ImageSet, StreamBatch


def forgetful(*, channels: int, classes: int, image_size: tuple[int, int]) -> nn.Module:
    """A net with dropout, for model.factory."""
    size = channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(size, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, classes))


def test_dropout_repeats_whatever_the_global_generator_did(
    make_config: Callable[[dict[str, object]], RunConfig],
    images: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("forgetful_net")
    module.forgetful = forgetful  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "forgetful_net", module)
    config = make_config({"model.name": "custom", "model.factory": "forgetful_net:forgetful", "defense.name": "none"})
    split = split_images(images, config.data.splits, config.seed)
    weights = []
    for spoiled in (1, 2):
        torch.manual_seed(spoiled)
        trained = burn_in(config, images, split, placement=FLOAT32, cache_dir=tmp_path / str(spoiled))
        torch.manual_seed(10 * spoiled)
        learner = OnlineLearner(config, images, split, trained, FLOAT32)
        for round in range(3):
            chosen = images.take(np.arange(20) + 20 * round)
            learner.learn([StreamBatch(0, round, chosen.images, chosen.labels)])
        weights.append(learner.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
