"""The server's model while it keeps learning: screen what arrived, one step, then evaluate."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from logging import getLogger

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.defense.history import State, build_histories
from fedmd.defense.samples.detectors import DETECTORS, Detector, check_detector
from fedmd.defense.samples.drift import ROUNDS, DriftMonitor
from fedmd.defense.samples.outputs import TrustedSet
from fedmd.defense.samples.pipeline import Pipeline, build_response
from fedmd.rounds.calibration import threshold_for
from fedmd.rounds.model import ServedModel
from fedmd.seeding import seed_for
from fedmd.storage import Saved
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Placement
from fedmd.training.online import make_optimizer, momentum_of, online_step, set_momentum
from fedmd.types import Drift, ImageSet, Screened, StreamBatch, Verdicts

log = getLogger(__name__)


@dataclass(frozen=True)
class Judged:
    """One round's union batch of N samples before the model moves: who sent what, and the verdicts."""

    clients: NDArray[np.int64]
    index: NDArray[np.int64]
    labels: NDArray[np.int64]
    screened: Screened


@dataclass(frozen=True)
class Learned(Judged):
    """What the batch then did: the loss (None: no step)."""

    loss: float | None
    wall_s: dict[str, float]


class OnlineLearner(ServedModel):
    """A served model with its optimizer and its defence."""

    def __init__(
        self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, placement: Placement
    ) -> None:
        super().__init__(config, images, split, burn_in, placement)
        self._config = config
        self._classes = images.classes
        check_detector(config.defense.detector, self.model)
        if (momentum := config.training.online.batchnorm_momentum) is not None:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = momentum
        self._optimizer = make_optimizer(self.model, config.training.online)
        torch.manual_seed(seed_for(config.seed, "start"))  # for models with dropout, as in `learn`
        self._settle_batchnorm(self.model)
        (history,) = build_histories(config.history, self._settled(burn_in.snapshots))
        self.pipeline = Pipeline(
            self.model,
            history,
            threshold_for(config, burn_in),
            build_response(config.defense),
            trusted=self.trusted,
            detector=DETECTORS[config.defense.detector],
            stopping=config.defense.stopping,
            rivals=rivals_of(config),
            monitor=monitor_of(config, len(split.trusted)),
        )
        self._warned = False

    def judge(self, batches: Sequence[StreamBatch]) -> Judged:
        """Screen the union of `batches` (in the given order); the model stays as it is."""
        union = ImageSet(
            np.concatenate([batch.images for batch in batches]),
            np.concatenate([batch.labels for batch in batches]),
            self._classes,
        )
        x, y = union.tensors(self._placement.device)
        clients = np.repeat([b.client for b in batches], [len(b) for b in batches]).astype(np.int64)
        senders = torch.from_numpy(clients).to(self._placement.device)
        with self._placement.autocast():
            screened = self.pipeline.screen(self._placement.images(x), y, senders)
        self._warn(screened.verdicts.drift)
        index = np.concatenate([np.arange(len(batch)) for batch in batches]).astype(np.int64)
        return Judged(clients, index, union.labels, screened)

    def step(self, judged: Judged) -> Learned:
        """One online step on what is left of a judged batch."""
        started = time.perf_counter()
        torch.manual_seed(seed_for(self._config.seed, "step", round=self.pipeline.steps))  # for models with dropout
        loss = online_step(
            self.model,
            self._optimizer,
            judged.screened.x,
            judged.screened.y,
            batchnorm="frozen" if self._config.training.online.batchnorm == "frozen" else "train",
            clip_norm=self._config.defense.clip_norm if self._config.defense.name == "clip" else None,
            placement=self._placement,
        )
        if loss is not None:
            self._settle_batchnorm(self.model)
            self.pipeline.observe()
        wall_s = {**self.pipeline.wall_s, "step": time.perf_counter() - started}
        return Learned(judged.clients, judged.index, judged.labels, judged.screened, loss, wall_s)

    def learn(self, batches: Sequence[StreamBatch]) -> Learned:
        """Judge `batches` and make a step at once."""
        return self.step(self.judge(batches))

    def trusted_scores(self) -> NDArray[np.float64]:
        """The detector's scores [m] of the trusted set under today's models; two forward passes."""
        with self._placement.autocast():
            pipeline = self.pipeline
            scores = pipeline.detector(TrustedSet(pipeline.historical, pipeline.current, *pipeline.trusted).answers)
        return scores.cpu().double().numpy()

    def state(self) -> Saved:
        """All that rounds have changed: model, momentum, history, steps, the threshold's monitor.

        Randomness needs no state: before a step it is seeded with the number of steps.
        """
        return {
            "model": self.model.state_dict(),
            "momentum": momentum_of(self._optimizer),
            "pipeline": self.pipeline.state(),
            "warned": self._warned,
        }

    def restore(self, saved: Saved) -> None:
        """Put back what `state` of a learner of the same configuration and burn-in returned."""
        self.model.load_state_dict(saved["model"])
        set_momentum(self._optimizer, saved["momentum"])
        self.pipeline.restore(saved["pipeline"])
        self._warned = saved["warned"]

    def _warn(self, drift: Drift | None) -> None:
        """Say so when drift starts; once a run, as `metrics.jsonl` has every round of it."""
        if drift is not None and not self._warned:
            self._warned = True
            log.warning(
                "threshold drift: over the last rounds (at most %d) %.1f %% of what was judged is above the threshold, "
                "which promised %.1f %%; either somebody attacks, or the stream is no longer like the trusted set",
                ROUNDS,
                100 * drift.rate,
                100 * drift.promised,
            )

    def _settle_batchnorm(self, model: nn.Module) -> None:
        """With batchnorm=trusted, running statistics come from the trusted set: no client has a say in them."""
        if self._config.training.online.batchnorm == "trusted":
            with self._placement.autocast():
                update_bn([self.trusted[0]], model)

    def _settled(self, snapshots: Sequence[State]) -> list[State]:
        """Burn-in's snapshots, with the batch-norm statistics that the model has in online learning."""
        if self._config.training.online.batchnorm != "trusted":
            return list(snapshots)
        settled: list[State] = []
        for snapshot in snapshots:
            model = copy.deepcopy(self.model)
            model.load_state_dict(snapshot)
            self._settle_batchnorm(model)
            settled.append(model.state_dict())
        return settled


NO_IDS = np.zeros(0, np.int64)
NO_VERDICTS = Verdicts(np.zeros(0), np.zeros(0), NO_IDS, NO_IDS, None)


def rivals_of(config: RunConfig) -> dict[str, Detector]:
    """Every detector that stands beside the discrepancy in the report; none where defense.rivals is off."""
    return {name: rival for name, rival in DETECTORS.items() if name != "discrepancy" and config.defense.rivals}


def monitor_of(config: RunConfig, trusted: int) -> DriftMonitor | None:
    """A monitor where a promise is made, and acted upon."""
    promised = config.threshold.name == "quantile" and config.defense.name in ("dsc", "drop")
    return DriftMonitor(config.threshold.fpr, trusted) if promised else None
