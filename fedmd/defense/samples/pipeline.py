"""Screen a batch, then hand over what to learn from: the one object a server needs, with Flower or without.

pipeline = Pipeline.from_config(model, defense="dsc", trusted=(x_trusted, y_trusted), snapshots=[early])
for x, y in stream:
    screened = pipeline.screen(x, y)
    online_step(model, optimizer, screened.x, screened.y)
    pipeline.observe()
"""

import copy
import math
import time
from collections.abc import Mapping, Sequence
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmd.config import ConfigError, DefenseConfig, HistoryConfig, ThresholdConfig
from fedmd.defense.base import Defense, ScoredBatch
from fedmd.defense.history import History, State
from fedmd.defense.samples.detectors.base import Detector, Score
from fedmd.defense.samples.detectors.model_scores import DISCREPANCY, Discrepancy
from fedmd.defense.samples.drift import DriftMonitor
from fedmd.defense.samples.following import Following
from fedmd.defense.samples.outputs import TrustedSet, compute_outputs
from fedmd.defense.samples.pooling import Stopping, count_alarms, pooled, pooled_trusted
from fedmd.defense.samples.thresholds import Threshold, ThresholdFunction
from fedmd.registry import DETECTORS
from fedmd.storage import Saved
from fedmd.types import Action, Screened, Verdicts

Settings = str | Mapping[str, object]  # a name, or a name and settings as in the configuration


class Pipeline:
    """Detector, threshold and defence in a row.

    Args:
        current: the model being trained, watched in place.
        history: told of it, now and by `observe`; `historical` is the net that holds its state.
        threshold: above which score a sample is suspicious.
        defense: what is done about it.
        trusted: the server's own clean samples [n, C, H, W] and labels [n], for thresholds and detectors that need
            them.
        detector, stopping: what is held against the threshold, and over what it is averaged first.
        baselines: detectors whose scores go with the verdicts and change nothing.
        monitor: watches a calibrated threshold's promise.
        follow: the share of `trusted` that recent samples of the stream replace.
    """

    def __init__(
        self,
        current: nn.Module,
        history: History,
        threshold: ThresholdFunction,
        defense: Defense,
        *,
        trusted: tuple[Tensor, Tensor],
        detector: Score = DISCREPANCY,
        stopping: Stopping = "per_sample",
        baselines: Mapping[str, Score] | None = None,
        monitor: DriftMonitor | None = None,
        follow: float = 0.0,
    ) -> None:
        self.current = current
        self.historical = copy.deepcopy(current).requires_grad_(False).eval()
        self.history = history
        self.threshold = threshold
        self.defense = defense
        self.trusted = trusted
        self.following = Following(trusted, follow) if follow else None
        self.detector = detector
        self.stopping = stopping
        self.baselines = baselines or {}
        self.monitor = monitor
        self.steps = 0
        self.wall_s = {"screening": 0.0, "correction": 0.0}  # of the latest batch
        self._screened_with: TrustedSet | None = None  # as the latest batch's screening asked it, until a model moves
        self._loaded: State = {}
        history.observe(current.state_dict())
        self._load_history()

    @classmethod
    def from_config(
        cls,
        current: nn.Module,
        *,
        trusted: tuple[Tensor, Tensor],
        snapshots: Sequence[nn.Module | State] = (),
        defense: Settings | DefenseConfig = "dsc",
        threshold: Settings | ThresholdConfig | ThresholdFunction | None = None,
        history: Settings | HistoryConfig | None = None,
    ) -> Self:
        """The pipeline of the sections defense, threshold and history of a run's configuration.

        Each is a name, a mapping such as {"name": "dsc", "radius": 0.3}, or the section itself; a threshold may be a
        function, too. Without them the threshold is the defence's companion or `quantile`, the history its companion,
        or `snapshot` where there are `snapshots`, or `ema`. `snapshots` are earlier models, oldest first;
        history=snapshot takes number `epoch` of them.

            >>> import torch
            >>> from fedmd import Pipeline
            >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
            >>> clean = torch.rand(40, 1, 2, 2), torch.arange(40) % 2
            >>> pipeline = Pipeline.from_config(model, defense="drop", history={"name": "lag", "lag": 3}, trusted=clean)
            >>> screened = pipeline.screen(torch.rand(10, 1, 2, 2), torch.arange(10) % 2)
            >>> len(screened.y), len(screened.verdicts.actions)  # both models are one: nothing is suspicious yet
            (10, 10)

        Raises:
            ConfigError: a setting is wrong, or for mode=update; the sentence names it.
        """
        defense = DefenseConfig.of(defense)
        acts: Defense = defense.make()
        detector: Detector = defense.make_slot("detector")
        detector.check_model(current)
        threshold = threshold or acts.companions.get("threshold", "quantile")
        history = history or acts.companions.get("history", "snapshot" if snapshots else "ema")
        if not callable(threshold):
            threshold = cast(Threshold, ThresholdConfig.of(threshold).make())
        monitor, promised = None, getattr(threshold, "promised", None)
        if promised is not None and acts.uses_threshold:
            monitor = DriftMonitor(promised, len(trusted[0]))
        states = [each.state_dict() if isinstance(each, nn.Module) else each for each in snapshots]
        history = HistoryConfig.of(history)
        for section in (defense, history):
            try:
                section.check_mode("stream")
            except ValueError as error:
                raise ConfigError(f"{error}.") from error
        (historical,) = history.make().build(states)
        baselines = [cast(type[Detector], each) for each in DETECTORS.own()] if defense.baselines else []
        return cls(
            current,
            historical,
            threshold,
            acts,
            trusted=trusted,
            detector=detector,
            stopping=defense.stopping,
            baselines={each.name: each(each.Params()) for each in baselines if each.is_baseline},
            monitor=monitor,
            follow=defense.follow,
        )

    def screen(self, x: Tensor, y: Tensor, clients: Tensor | None = None) -> Screened:
        """The batch to learn from and a verdict on each of the N samples.

        `x` [N, C, H, W] in [0, 1], `y` [N], `clients` [N] the senders (for stopping="per_client"); without them the
        batch is one client's. Samples that are merely accepted come back bit-identical and in their order; rejected
        ones are left out.
        """
        started = time.perf_counter()
        clients = torch.zeros_like(y) if clients is None else clients
        trusted = self._screened_with = TrustedSet(self.historical, self.current, *self.trusted)
        outputs = compute_outputs(self.historical, self.current, x, y, lambda: trusted.samples)
        before = self.detector(outputs)
        threshold = self.threshold(
            self.steps, lambda: pooled_trusted(trusted.scores(self.detector), self.stopping, clients, len(x))
        )
        suspicious = pooled(before, self.stopping, clients) > threshold
        drift = None
        if self.monitor is not None and math.isfinite(threshold):
            drift = self.monitor.observe(*count_alarms(suspicious, self.stopping, clients), samples=len(x))
        screened = time.perf_counter()
        baselines = {name: _array(baseline(outputs)) for name, baseline in self.baselines.items()}
        compared = time.perf_counter()
        decision = self.defense.decide(
            ScoredBatch(
                *(self.current, self.historical, x, y, before, suspicious, threshold, clients),
                *(outputs.trusted, self.detector, self.stopping),
            )
        )
        verdicts = Verdicts(
            before=_array(before),
            after=_array(decision.after),
            steps=decision.steps.long().cpu().numpy(),
            actions=decision.actions.long().cpu().numpy(),
            threshold=threshold if math.isfinite(threshold) else None,
            discrepancy=None if isinstance(self.detector, Discrepancy) else _array(DISCREPANCY(outputs)),
            baselines=baselines,
            drift=drift,
        )
        keep = decision.actions != Action.REJECTED
        kept = (decision.x, y) if bool(keep.all()) else (decision.x[keep], y[keep])
        if self.following is not None:
            self.following.observe(x, y, before, clients)
            self.trusted = self.following.trusted
        self.wall_s = {"screening": screened - started, "correction": time.perf_counter() - compared}
        if self.baselines:
            self.wall_s["baselines"] = compared - screened
        return Screened(*kept, verdicts)

    def observe(self) -> None:
        """Tell the history and the threshold that the current model made one more online step."""
        self.steps += 1
        self._screened_with = None
        self.history.observe(self.current.state_dict())
        self._load_history()

    def trusted_set(self) -> TrustedSet:
        """The trusted samples under today's two models: those that the latest screening has asked already, if any."""
        return self._screened_with or TrustedSet(self.historical, self.current, *self.trusted)

    def state(self) -> Saved:
        """What `restore` needs to go on from here; the current model is its owner's. Thresholds remember nothing."""
        monitor = None if self.monitor is None else self.monitor.state()
        state: Saved = {"history": self.history.save(), "steps": self.steps, "monitor": monitor}
        return state if self.following is None else {**state, "following": self.following.state()}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` of an equal pipeline returned."""
        self.history.restore(saved["history"])
        self._screened_with = None
        self._load_history()
        self.steps = saved["steps"]
        if self.following is not None:
            self.following.restore(saved["following"])
            self.trusted = self.following.trusted
        if self.monitor is not None:
            self.monitor.restore(saved["monitor"])

    def _load_history(self) -> None:
        if self._loaded is not self.history.state:
            self._loaded = self.history.state
            self.historical.load_state_dict(self._loaded)


def _array(scores: Tensor) -> NDArray[np.float64]:
    return scores.cpu().double().numpy()
