"""The server of mode=stream: clients send samples; they are screened, and one online step is made on what is left."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from fedmd import storage
from fedmd.audit.entries import JudgedMessage, Score
from fedmd.defense.evidence import Ranks, ranked_by_class
from fedmd.defense.history import State
from fedmd.defense.samples.drift import ROUNDS
from fedmd.defense.samples.pipeline import Pipeline
from fedmd.defense.samples.thresholds import Threshold
from fedmd.rounds.model import ServerModel
from fedmd.rounds.records import Judged, Learned, Unit
from fedmd.seeding import seed_for
from fedmd.storage import Saved
from fedmd.training.device import seed_torch
from fedmd.training.online import make_optimizer, online_step, set_momentum
from fedmd.training.setup import Setup
from fedmd.types import Action, Drift, ImageSet, StreamBatch, Verdicts

log = getLogger(__name__)
MODELS = "models.safetensors"  # the run folder's file with the last model, and what its pipeline remembers


@dataclass(frozen=True)
class JudgedSamples(Judged[StreamBatch]):
    """With the samples to learn from: `x` [M, C, H, W] in [0, 1] and `y` [M], those of N that were not rejected."""

    x: Tensor
    y: Tensor


class StreamServer:
    """A model with its optimizer and its defence; see `fedmd.rounds.protocols.Server`."""

    unit: Unit = "sample"

    def __init__(self, setup: Setup) -> None:
        config = self._config = setup.data.config
        self._classes = setup.data.images.classes
        self._placement = setup.placement
        self.model = ServerModel(setup)
        net = self.model.net
        if (momentum := config.training.online.batchnorm_momentum) is not None:
            for module in net.modules():
                if isinstance(module, _BatchNorm):
                    module.momentum = momentum
        self._optimizer = make_optimizer(net, config.training.online)
        seed_torch(seed_for(config.seed, "start"), setup.placement.device)  # for models with dropout, as in `learn`
        self._refit_batchnorm(net, self.model.trusted[0])
        threshold: Threshold = config.threshold.make()
        threshold.prepare(config, setup.trained)
        self.pipeline = Pipeline.from_config(
            net,
            trusted=self.model.trusted,
            snapshots=self._refitted(setup.trained.snapshots),
            defense=config.defense,
            threshold=threshold,
            history=config.history,
        )
        self.baselines = tuple(self.pipeline.baselines)
        self._warned = False

    @property
    def version(self) -> int:
        """Online steps since burn-in."""
        return self.pipeline.steps

    def judge(self, messages: Sequence[StreamBatch]) -> JudgedSamples:
        """Screen the union of the batches (in the given order); the model stays as it is."""
        if not messages:
            none = np.zeros(0, np.int64)
            verdicts = Verdicts(np.zeros(0), np.zeros(0), none, none, None)
            return JudgedSamples((), none, none, none, verdicts, (), {}, torch.empty(0), torch.empty(0))
        union = ImageSet(
            np.concatenate([batch.images for batch in messages]),
            np.concatenate([batch.labels for batch in messages]),
            self._classes,
        )
        x, y = union.tensors(self._placement.device)
        clients = np.repeat([b.client for b in messages], [len(b) for b in messages]).astype(np.int64)
        senders = torch.from_numpy(clients).to(self._placement.device)
        with self._placement.autocast():
            screened = self.pipeline.screen(self._placement.images(x), y, senders)
        self._warn(screened.verdicts.drift)
        return JudgedSamples(
            tuple(messages),
            clients,
            np.concatenate([np.arange(len(batch)) for batch in messages]).astype(np.int64),
            union.labels,
            screened.verdicts,
            for_audit(messages, screened.verdicts),
            dict(self.pipeline.wall_s),
            screened.x,
            screened.y,
        )

    def evidence(self, judged: Judged[StreamBatch]) -> Ranks | None:
        """The detector's scores of the samples among those of the trusted set under the same models; class by class.

        None where a model has diverged, so that the trusted set's are no numbers. What the screening has measured is
        not measured again.
        """
        with self._placement.autocast():
            asked = self.pipeline.trusted_set()
            trusted = asked.scores(self.pipeline.detector).cpu().double().numpy()
        if not np.isfinite(trusted).all():
            return None
        return ranked_by_class(judged.verdicts.before, judged.labels, trusted, asked.outputs.labels.cpu().numpy())

    def without(self, judged: Judged[StreamBatch], clients: frozenset[int]) -> JudgedSamples:
        """`judged` with every sample of `clients` rejected."""
        assert isinstance(judged, JudgedSamples)
        out = np.isin(judged.clients, sorted(clients))
        staying = torch.from_numpy(~out[judged.verdicts.actions != Action.REJECTED]).to(judged.x.device)
        verdicts = replace(judged.verdicts, actions=np.where(out, int(Action.REJECTED), judged.verdicts.actions))
        return replace(judged, verdicts=verdicts, x=judged.x[staying], y=judged.y[staying])

    def tensors(self, message: StreamBatch) -> dict[str, Tensor]:
        """The batch, copied."""
        return {"images": torch.from_numpy(message.images.copy()), "labels": torch.from_numpy(message.labels.copy())}

    def learn(self, judged: Judged[StreamBatch]) -> Learned:
        """One online step on what is left of a judged round; none where nothing is."""
        assert isinstance(judged, JudgedSamples)
        if not judged.messages:
            return Learned()
        started, batchnorm = time.perf_counter(), self._config.training.online.batchnorm
        seed = seed_for(self._config.seed, "step", round=self.pipeline.steps)
        seed_torch(seed, self._placement.device)  # for models with dropout
        loss = online_step(
            self.model.net,
            self._optimizer,
            judged.x,
            judged.y,
            batchnorm="train" if batchnorm == "trusted" else batchnorm,
            clip_norm=self.pipeline.defense.clip_norm,
            placement=self._placement,
        )
        if loss is not None:
            self._refit_batchnorm(self.model.net, self.pipeline.trusted[0])
            self.pipeline.observe()
        return Learned(loss, {"step": time.perf_counter() - started})

    def state(self) -> Saved:
        """All that rounds have changed: model, momentum, history, steps, the threshold's monitor.

        Randomness needs no state: before a step it is seeded with the number of steps.
        """
        return {
            "model": self.model.net.state_dict(),
            "momentum": self._optimizer.momentum_buffers,
            "pipeline": self.pipeline.state(),
            "warned": self._warned,
        }

    def restore(self, saved: Saved) -> None:
        """Put back what `state` of a server of the same configuration and burn-in returned."""
        self.model.net.load_state_dict(saved["model"])
        set_momentum(self._optimizer, saved["momentum"])
        self.pipeline.restore(saved["pipeline"])
        self._warned = saved["warned"]

    def save_models(self, folder: Path) -> None:
        """Keep the current model and the history, so that stored messages can be judged, and learned from, later."""
        storage.save_tree(folder / MODELS, {"current": self.model.net.state_dict(), "pipeline": self.pipeline.state()})

    def load_models(self, folder: Path) -> None:
        """Put back what `save_models` saved. Raises FileNotFoundError or CheckpointError."""
        saved = storage.load_tree(folder / MODELS)
        self.model.net.load_state_dict(saved["current"])
        self.pipeline.restore(saved["pipeline"])

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

    def _refit_batchnorm(self, model: nn.Module, trusted: Tensor) -> None:
        """With batchnorm=trusted, running statistics come from the trusted set: no client has a say in them."""
        if self._config.training.online.batchnorm == "trusted":
            with self._placement.autocast():
                update_bn([trusted], model)

    def _refitted(self, snapshots: Sequence[State]) -> list[State]:
        """Burn-in's snapshots, with the batch-norm statistics that the net has in online learning."""
        if self._config.training.online.batchnorm != "trusted":
            return list(snapshots)
        refitted: list[State] = []
        for snapshot in snapshots:
            net = copy.deepcopy(self.model.net)
            net.load_state_dict(snapshot)
            self._refit_batchnorm(net, self.model.trusted[0])
            refitted.append(net.state_dict())
        return refitted


def for_audit(batches: Sequence[StreamBatch], verdicts: Verdicts) -> tuple[JudgedMessage, ...]:
    """`verdicts` [N] on the samples of `batches`, in their order, message by message."""
    scores = None if verdicts.discrepancy is None else verdicts.before
    discrepancies = verdicts.before if verdicts.discrepancy is None else verdicts.discrepancy
    messages, start = [], 0
    for batch in batches:
        rows = slice(start, start := start + len(batch))
        other = [None] * len(batch) if scores is None else [_finite(value) for value in scores[rows]]
        each = [
            Score(_finite(value), score, verdicts.threshold)
            for value, score in zip(discrepancies[rows], other, strict=True)
        ]
        whole = Score(
            _finite(discrepancies[rows].mean()),
            None if scores is None else _finite(scores[rows].mean()),
            verdicts.threshold,
        )
        actions = [Action(int(action)) for action in verdicts.actions[rows]]
        refused = all(action == Action.REJECTED for action in actions)
        reason = "every sample was rejected" if refused else None
        messages.append(JudgedMessage(batch.client, batch.content, actions, each, whole, reason))
    return tuple(messages)


def _finite(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None
