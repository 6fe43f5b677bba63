"""The server's model while it keeps learning: screen what arrived, one step, then evaluate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.defense.detector import DETECTORS
from fedmd.defense.history import build_history
from fedmd.defense.pipeline import Pipeline, build_response
from fedmd.models import model_for
from fedmd.seeding import seed_for
from fedmd.server.calibration import threshold_for
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Numerics
from fedmd.training.evaluate import accuracy
from fedmd.training.online import make_optimizer, online_step
from fedmd.types import ImageSet, Screened, StreamBatch


@dataclass(frozen=True)
class Learned:
    """What one round's union batch of N samples did: who sent what, the verdicts, the loss (None: no step)."""

    clients: NDArray[np.int64]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    screened: Screened
    loss: float | None
    wall_s: dict[str, float]


class OnlineLearner:
    """One model from the end of burn-in on, with its optimizer and its defence."""

    def __init__(self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, numerics: Numerics) -> None:
        self._config = config
        self._classes = images.classes
        self._numerics = numerics
        self.model = model_for(config.model, images, config.seed)
        self.model.load_state_dict(burn_in.final)
        numerics.place(self.model)
        if (momentum := config.training.online.batchnorm_momentum) is not None:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = momentum
        self._optimizer = make_optimizer(self.model, config.training.online)
        torch.manual_seed(seed_for(config.seed, "start"))  # for models with dropout, as in `learn`
        self._trusted = images.take(split.trusted).tensors(numerics.device)
        self._settle_batchnorm(self.model)
        self._test_x, self._test_y = images.take(split.test).tensors(numerics.device)
        history = build_history(config.history, self.model, burn_in.snapshots)
        self._settle_batchnorm(history.model)
        self.pipeline = Pipeline(
            self.model,
            history,
            threshold_for(config, burn_in),
            build_response(config.defense),
            trusted=(numerics.images(self._trusted[0]), self._trusted[1]),
            detector=DETECTORS[config.defense.detector],
            stopping=config.defense.stopping,
        )

    def learn(self, batches: Sequence[StreamBatch]) -> Learned:
        """Screen the union of `batches` (in the given order) and make one step on what is left of it."""
        union = ImageSet(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            self._classes,
        )
        x, y = union.tensors(self._numerics.device)
        clients = np.repeat([b.client for b in batches], [len(b) for b in batches]).astype(np.int64)
        senders = torch.from_numpy(clients).to(self._numerics.device)
        with self._numerics.autocast():
            screened = self.pipeline.screen(self._numerics.images(x), y, senders)
        started = time.perf_counter()
        torch.manual_seed(seed_for(self._config.seed, "step", round=self.pipeline.steps))  # for models with dropout
        loss = online_step(
            self.model,
            self._optimizer,
            screened.x,
            screened.y,
            batchnorm="frozen" if self._config.training.online.batchnorm == "frozen" else "train",
            numerics=self._numerics,
        )
        if loss is not None:
            self._settle_batchnorm(self.model)
            self.pipeline.observe()
        return Learned(
            clients=clients,
            index=np.concatenate([np.arange(len(batch)) for batch in batches]).astype(np.int64),
            labels=union.labels,
            screened=screened,
            loss=loss,
            wall_s={**self.pipeline.wall_s, "step": time.perf_counter() - started},
        )

    def _settle_batchnorm(self, model: nn.Module) -> None:
        """With batchnorm=trusted, running statistics come from the trusted set: no client has a say in them."""
        if self._config.training.online.batchnorm == "trusted":
            with self._numerics.autocast():
                update_bn([self._numerics.images(self._trusted[0])], model)

    def accuracy(self) -> float:
        """Share of the test set the current model gets right."""
        with self._numerics.autocast():
            return accuracy(self.model, self._test_x, self._test_y)
