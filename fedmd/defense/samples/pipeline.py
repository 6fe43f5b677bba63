"""Screen a batch, then hand over what to learn from: the one object a server needs, with Flower or without.

pipeline = Pipeline(model, history, threshold, build_response(config), trusted=(x_trusted, y_trusted))
for x, y in stream:
    screened = pipeline.screen(x, y)
    online_step(model, optimizer, screened.x, screened.y)
    pipeline.observe()
"""

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fedmd.config import DefenseConfig
from fedmd.defense.history import History, State
from fedmd.defense.samples.correction import adversarial_correct, correct
from fedmd.defense.samples.detectors import DETECTORS, Detector, Stopping, alarms, discrepancy, pooled, pooled_reference
from fedmd.defense.samples.drift import DriftMonitor
from fedmd.defense.samples.outputs import Reference, TrustedSet, ask
from fedmd.defense.samples.thresholds import Threshold
from fedmd.storage import Saved
from fedmd.types import Action, Screened, Verdicts


@dataclass(frozen=True)
class Suspects:
    """A batch as a response sees it: `x` [N, C, H, W], `y` [N], the score `before` [N], and who is `suspicious` [N].

    `clients` [N] are the senders, None where the caller knows of none. `reference` gives the trusted set.
    """

    current: nn.Module
    historical: nn.Module
    x: Tensor
    y: Tensor
    before: Tensor
    suspicious: Tensor
    threshold: float
    clients: Tensor | None
    reference: Callable[[], Reference] | None = None


@dataclass(frozen=True)
class Answer:
    """A response's decision on N samples: the new `x`, Action values [N], steps [N], the score `after` [N]."""

    x: Tensor
    actions: Tensor
    steps: Tensor
    after: Tensor


Response = Callable[[Suspects], Answer]


def accept(suspects: Suspects) -> Answer:
    """Learn from everything as it is (the paper's ST)."""
    return _uniform(suspects, Action.ACCEPTED)


def reject(suspects: Suspects) -> Answer:
    """Learn from nothing: the frozen model every defence must beat."""
    return _uniform(suspects, Action.REJECTED)


def drop(suspects: Suspects) -> Answer:
    """Reject what is above the threshold."""
    actions = torch.where(suspects.suspicious, Action.REJECTED, Action.ACCEPTED)
    return Answer(suspects.x, actions, torch.zeros_like(actions), suspects.before)


def trim(config: DefenseConfig, suspects: Suspects) -> Answer:
    """Reject the share `trim_share` of the batch that scores highest, threshold or not: by current loss, loss trimming.

    Shen & Sanghavi, Learning with Bad Training Data via Iterative Trimmed Loss Minimization, ICML 2019: of N samples
    learn from the floor((1 - share) N) of the smallest loss. NaN counts as the largest, of equals the earlier stay.
    """
    n = len(suspects.before)
    kept = math.floor(round((1 - config.trim_share) * n, 9))  # the round keeps 0.9 * 10 from becoming 8
    actions = torch.full((n,), Action.REJECTED, dtype=torch.int64, device=suspects.x.device)
    actions[suspects.before.argsort(stable=True)[:kept]] = Action.ACCEPTED
    return Answer(suspects.x, actions, torch.zeros_like(actions), suspects.before)


def discrepancy_aware(config: DefenseConfig, suspects: Suspects) -> Answer:
    """DSC, eq (6): pull back what is above the threshold, then learn from it."""
    correction = correct(
        suspects.current,
        suspects.historical,
        suspects.x,
        suspects.y,
        threshold=suspects.threshold,
        step_size=config.step_size,
        radius=config.radius,
        max_steps=config.max_steps,
        stopping=config.stopping,
        before=suspects.before,
        clients=suspects.clients,
        detector=DETECTORS[config.detector],
        reference=suspects.reference,
    )
    actions = torch.where(correction.steps > 0, Action.CORRECTED, Action.ACCEPTED)
    return Answer(correction.x, actions, correction.steps, correction.after)


def adversarial(config: DefenseConfig, suspects: Suspects) -> Answer:
    """The paper's AT: the same inner loop for every sample, no threshold."""
    x = adversarial_correct(
        suspects.current,
        suspects.x,
        suspects.y,
        step_size=config.step_size,
        radius=config.radius,
        max_steps=config.max_steps,
    )
    answer = _uniform(suspects, Action.CORRECTED)
    unmeasured = torch.full_like(suspects.before, torch.nan)
    return Answer(x, answer.actions, torch.full_like(answer.steps, config.max_steps), unmeasured)


def build_response(config: DefenseConfig) -> Response:
    """The response a configuration asks for."""
    responses: dict[str, Response] = {
        "none": accept,
        "clip": accept,  # what is clipped is the step that follows
        "frozen": reject,
        "drop": drop,
        "trim": partial(trim, config),
        "dsc": partial(discrepancy_aware, config),
        "at": partial(adversarial, config),
    }
    return responses[config.name]


class Pipeline:
    """Discrepancy, threshold and response in a row. `current` is the model being trained, watched in place.

    `history` is told of it, now and by `observe`; `historical` is the net that holds its state.

    `trusted` are the server's own clean samples [n, C, H, W] and labels [n], for thresholds that need them.
    `detector` and `stopping` say what is held against the threshold (see `samples.detectors`). `rivals` are detectors
    whose scores go with the verdicts and change nothing; `monitor` watches a calibrated threshold's promise.
    """

    def __init__(
        self,
        current: nn.Module,
        history: History,
        threshold: Threshold,
        response: Response,
        *,
        trusted: tuple[Tensor, Tensor],
        detector: Detector = discrepancy,
        stopping: Stopping = "per_sample",
        rivals: Mapping[str, Detector] | None = None,
        monitor: DriftMonitor | None = None,
    ) -> None:
        self.current = current
        self.historical = copy.deepcopy(current).requires_grad_(False).eval()
        self.history = history
        self.threshold = threshold
        self.response = response
        self.trusted = trusted
        self.detector = detector
        self.stopping = stopping
        self.rivals = rivals or {}
        self.monitor = monitor
        self.steps = 0
        self.wall_s = {"screening": 0.0, "correction": 0.0}  # of the latest batch
        history.observe(current.state_dict())
        self._loaded: State = {}
        self._load_history()

    def screen(self, x: Tensor, y: Tensor, clients: Tensor | None = None) -> Screened:
        """The batch to learn from and a verdict on each of the N samples.

        `x` [N, C, H, W] in [0, 1], `y` [N], `clients` [N] the senders (for stopping="per_client"). Samples that are
        merely accepted come back bit-identical and in their order; rejected ones are left out.
        """
        started = time.perf_counter()
        historical = self.historical
        trusted = TrustedSet(historical, self.current, *self.trusted)
        answers = ask(historical, self.current, x, y, lambda: trusted.reference)
        before = self.detector(answers)
        threshold = self.threshold(self.steps, lambda: self._reference(trusted, clients, len(x)))
        suspicious = pooled(before, self.stopping, clients) > threshold
        drift = None
        if self.monitor is not None and math.isfinite(threshold):
            drift = self.monitor.observe(*alarms(suspicious, self.stopping, clients), samples=len(x))
        measured = time.perf_counter()
        rivals = {name: rival(answers).cpu().double().numpy() for name, rival in self.rivals.items()}
        rivalled = time.perf_counter()
        answer = self.response(
            Suspects(self.current, historical, x, y, before, suspicious, threshold, clients, answers.reference)
        )
        verdicts = Verdicts(
            before=before.cpu().double().numpy(),
            after=answer.after.cpu().double().numpy(),
            steps=answer.steps.long().cpu().numpy(),
            actions=answer.actions.long().cpu().numpy(),
            threshold=threshold if np.isfinite(threshold) else None,
            discrepancy=None if self.detector is discrepancy else discrepancy(answers).cpu().double().numpy(),
            rivals=rivals,
            drift=drift,
        )
        keep = answer.actions != Action.REJECTED
        kept = (answer.x, y) if bool(keep.all()) else (answer.x[keep], y[keep])
        self.wall_s = {"screening": measured - started, "correction": time.perf_counter() - rivalled}
        if self.rivals:
            self.wall_s["rivals"] = rivalled - measured
        return Screened(*kept, verdicts)

    def _reference(self, trusted: TrustedSet, clients: Tensor | None, n: int) -> Tensor:
        return pooled_reference(self.detector(trusted.answers), self.stopping, clients, n)

    def observe(self) -> None:
        """Tell the history and the threshold that the current model made one more online step."""
        self.steps += 1
        self.history.observe(self.current.state_dict())
        self._load_history()

    def _load_history(self) -> None:
        if self._loaded is not self.history.state:
            self._loaded = self.history.state
            self.historical.load_state_dict(self._loaded)

    def state(self) -> Saved:
        """What `restore` needs to go on from here; the current model is its owner's. Thresholds remember nothing."""
        monitor = None if self.monitor is None else self.monitor.state()
        return {"history": self.history.save(), "steps": self.steps, "monitor": monitor}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` of an equal pipeline returned."""
        self.history.restore(saved["history"])
        self._load_history()
        self.steps = saved["steps"]
        if self.monitor is not None:
            self.monitor.restore(saved["monitor"])


def _uniform(suspects: Suspects, action: Action) -> Answer:
    actions = torch.full((len(suspects.x),), action, dtype=torch.int64, device=suspects.x.device)
    return Answer(suspects.x, actions, torch.zeros_like(actions), suspects.before)
