"""Judging a round's updates with one net: measured, held against limits, then rejected, shortened or weighed less."""

import copy
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.defense.history import History
from fedmd.defense.updates.canary import CanaryWatch
from fedmd.defense.updates.discrepancy import State, largest_scale, load_between, update_discrepancy
from fedmd.defense.updates.limits import Limits, Past, UpdateThreshold, as_threshold, robust_threshold, within_both
from fedmd.storage import Saved
from fedmd.types import Action, Canary

ScreeningAction = Literal["reject", "correct", "weight"]
Probe = Tensor | Iterable[Tensor] | Iterable[Sequence[Tensor]]


@dataclass(frozen=True)
class UpdateVerdict:
    """What became of one client's update in one round.

    `discrepancies` (nats) are those of the update as it arrived, one per history, and behind them the probe's loss
    where that is screened too; `limits` theirs this round, and `after` those of what was handed on; empty where there
    is nothing to measure or nothing was handed on. `scale` in [0, 1] is the share of the update that was handed on
    (action "correct"), or of its weight ("weight"). `reason` is "" for an accepted update.
    """

    node: int
    discrepancies: tuple[float, ...]
    after: tuple[float, ...]
    scale: float
    action: Action
    reason: str
    limits: tuple[Limits, ...]

    @property
    def excess(self) -> float | None:
        """How far outside the limits, max over histories of log(D / upper) and log(lower / D): suspicious above 0."""
        return excess(self.discrepancies, self.limits) if self.discrepancies else None

    @property
    def evidence(self) -> float:
        """max(0, excess), what evidence (9) is made of; the largest number where it could not be measured."""
        beyond = self.excess
        return sys.float_info.max if beyond is None else min(max(0.0, beyond), sys.float_info.max)


class UpdateScreen:
    """One net that takes the shape of every candidate model in turn, the round's historical outputs, and the limits.

    Args:
        model: copied, so the caller's stays as it is.
        probe: trusted images; read once: batches of images, or of (images, labels), or one tensor of images.
        histories: the models to compare with; an update is suspicious if it is outside the limits of any. One forward
            pass of a candidate serves them all.
        threshold: the largest D in nats, or a function that gives the round's limits.
        loss_threshold: limits of every candidate's mean cross-entropy on the probe (nats), which is then measured
            behind its discrepancies. That looks at labels, which (10) does not: a second extension.
        past: limits from earlier rounds beside those of the round, with a memory of its own; None: the round's alone.
        canary: looks at every round's global model, beside the screening; None: nobody does.
        action: what becomes of an update outside the limits. "reject": nothing is learned from it. "correct": one above
            an upper limit is shortened to the largest scale that is not, rejected if there is none, and so is one below
            a lower limit. "weight": it counts by limit / D (or D / limit).

    Holds two states and one net, whatever the number of clients, beside what the histories hold.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        model: nn.Module,
        probe: Probe,
        histories: Sequence[History],
        *,
        threshold: float | UpdateThreshold = robust_threshold,
        loss_threshold: UpdateThreshold | None = None,
        past: Past | None = None,
        canary: CanaryWatch | None = None,
        action: ScreeningAction = "reject",
    ) -> None:
        if action not in get_args(ScreeningAction):
            raise ValueError(f"action must be one of {', '.join(get_args(ScreeningAction))}, got {action!r}")
        self._model = copy.deepcopy(model).requires_grad_(False).eval()
        self.own: State = self._model.state_dict()  # the net's own tensors: every candidate is copied into these
        device = next((tensor.device for tensor in self.own.values()), None)
        images, labels = _read(probe)
        self._probe = [x.to(device) for x in images]
        self._labels = torch.cat(labels).to(device) if loss_threshold is not None and labels else None
        if loss_threshold is not None and self._labels is None:
            raise ValueError("probe must have labels, as batches of (images, labels), for its loss to be screened")
        if sum(len(x) for x in self._probe) == 0:
            raise ValueError("probe must have at least one sample")
        if not histories:
            raise ValueError("history must be at least one model to compare with")
        self.histories = tuple(histories)
        self.action = action
        self.past = past
        self._watch = canary
        self.canary: Canary | None = None  # of the round that began last
        self._thresholds = [as_threshold(threshold)] * len(self.histories)
        if loss_threshold is not None:
            self._thresholds.append(loss_threshold)
        self._current: State = {}
        self._historical_logits = torch.empty(0)

    def start_round(self, current: State) -> None:
        """Remember θ_t and what the historical models say to the probe."""
        self._current = current
        answers = []
        for history in self.histories:
            history.observe(current)
            load_between(self.own, history.state, history.state, 1)
            answers.append(self._answers())
        self._historical_logits = torch.stack(answers)
        if self._watch is not None:
            load_between(self.own, current, current, 1)
            self.canary = self._watch.look(self._model)

    def save(self) -> Saved:
        """What rounds have changed: the histories, the past, and the canary's."""
        return {
            "histories": [history.save() for history in self.histories],
            "past": None if self.past is None else self.past.save(),
            "canary": None if self._watch is None else self._watch.save(),
        }

    def restore(self, saved: Saved) -> None:
        """Put back what `save` of a screen made like this one returned."""
        for history, state in zip(self.histories, saved["histories"], strict=True):
            history.restore(state)
        if self.past is not None:
            self.past.restore(saved["past"])
        if self._watch is not None:
            self._watch.restore(saved["canary"])

    @property
    def started(self) -> bool:
        """Whether there is a round to measure updates in."""
        return self._historical_logits.numel() > 0

    def judge(self, received: Sequence[tuple[int, State | str]]) -> tuple[UpdateVerdict, ...]:
        """A verdict on each of a round's updates, given as (client or node id, state or why there is none).

        Raises RuntimeError before the first `start_round`.
        """
        if not self.started:
            raise RuntimeError("start_round must come before judge")
        measured = [state if isinstance(state, str) else self._measured(state) for _, state in received]
        found = [values for values in measured if isinstance(values, tuple)]
        limits = tuple(of([values[i] for values in found]) for i, of in enumerate(self._thresholds))
        if self.past is not None:
            limits = within_both(limits, self.past.limits(len(found)))
        verdicts = []
        for (node, state), values in zip(received, measured, strict=True):
            if isinstance(values, str) or isinstance(state, str):
                verdicts.append(UpdateVerdict(node, (), (), 0.0, Action.REJECTED, str(values), limits))
            elif excess(values, limits) <= 0:
                verdicts.append(UpdateVerdict(node, values, values, 1.0, Action.ACCEPTED, "", limits))
            else:
                verdicts.append(self._act(node, state, values, limits))
        if self.past is not None:
            self.past.note([verdict.discrepancies for verdict in verdicts if verdict.action == Action.ACCEPTED])
        return tuple(verdicts)

    def _measured(self, state: State) -> tuple[float, ...] | str:
        values = self.measure(state)
        return values if math.inf not in values else "its answers to the probe are not finite"

    def _act(self, node: int, state: State, values: tuple[float, ...], limits: tuple[Limits, ...]) -> UpdateVerdict:
        """What `action` asks for, on an update outside the limits."""
        below = any(value < limit.lower for value, limit in zip(values, limits, strict=True))
        reason = self.explain(values, limits)
        if self.action == "weight" and (share := math.exp(-excess(values, limits))) > 0:
            return UpdateVerdict(node, values, values, share, Action.CORRECTED, reason, limits)
        if self.action == "correct" and not below:
            scale, after = self.correct(state, limits)
            if scale > 0:
                return UpdateVerdict(node, values, after, scale, Action.CORRECTED, reason, limits)
        return UpdateVerdict(node, values, (), 0.0, Action.REJECTED, reason, limits)

    @torch.no_grad()
    def shortened(self, received: State, scale: float) -> State:
        """θ_t + scale · Δ, in the net's own tensors: to be copied before the next update is looked at."""
        load_between(self.own, self._current, received, scale)
        return self.own

    @torch.inference_mode()
    def measure(self, received: State, scale: float = 1.0) -> tuple[float, ...]:
        """D(θ_t + scale · Δ), eq (10), in nats, from every history."""
        load_between(self.own, self._current, received, scale)
        answers = self._answers()
        values = update_discrepancy(self._historical_logits, answers)
        if self._labels is None:
            return values
        loss = cross_entropy(answers.float(), self._labels).item()
        return (*values, loss if math.isfinite(loss) else math.inf)

    @torch.inference_mode()
    def _answers(self) -> Tensor:
        """Logits [N, K] of what the net holds now, for the whole probe."""
        return torch.cat([self._model(x) for x in self._probe])

    def explain(self, values: Sequence[float], limits: Sequence[Limits]) -> str:
        """Which of the measured values are outside their limits, in words."""
        outside = (
            f"its {'discrepancy' if i < len(self.histories) else 'loss'} {value:.3g} is not within "
            f"{limit.lower:.3g} and {limit.upper:.3g} nats"
            for i, (value, limit) in enumerate(zip(values, limits, strict=True))
            if not limit.lower <= value <= limit.upper
        )
        return "; ".join(dict.fromkeys(outside))  # two histories may still be one model

    def correct(self, received: State, limits: Sequence[Limits]) -> tuple[float, tuple[float, ...]]:
        """The largest scale with no value above its upper limit, and the values there."""
        scale, _ = largest_scale(lambda a: _ratio(self.measure(received, a), limits), 1.0)
        return scale, self.measure(received, scale)


def excess(discrepancies: Sequence[float], limits: Sequence[Limits]) -> float:
    """Max over histories of log(D / upper) and log(lower / D): at most 0 within all limits, above 0 outside of one."""
    return max(
        max(_log_ratio(value, limit.upper), _log_ratio(limit.lower, value))
        for value, limit in zip(discrepancies, limits, strict=True)
    )


def decisive(discrepancies: Sequence[float], limits: Sequence[Limits]) -> tuple[int, float]:
    """Which of the values makes the `excess`, and the limit that it came closest to or went beyond."""
    beyond = [
        max((_log_ratio(value, limit.upper), limit.upper), (_log_ratio(limit.lower, value), limit.lower))
        for value, limit in zip(discrepancies, limits, strict=True)
    ]
    which = max(range(len(beyond)), key=lambda i: beyond[i][0])
    return which, beyond[which][1]


def _ratio(discrepancies: Sequence[float], limits: Sequence[Limits]) -> float:
    return math.exp(min(700.0, max(_log_ratio(d, limit.upper) for d, limit in zip(discrepancies, limits, strict=True))))


def _log_ratio(a: float, b: float) -> float:
    """log(a / b) with 0 and infinity where they belong, 0 for a = b; a negative limit is below everything."""
    if a == b:
        return 0.0
    if b == math.inf or (a <= 0 and b >= 0):
        return -math.inf
    return math.inf if b <= 0 or a == math.inf else math.log(a / b)


def _read(probe: Probe) -> tuple[list[Tensor], list[Tensor]]:
    """The batches of images and, where there are any, of labels."""
    if isinstance(probe, Tensor):
        return list(torch.split(probe, 256)), []
    images, labels = [], []
    for batch in probe:
        if isinstance(batch, Tensor):
            images.append(batch)
        else:
            images.append(batch[0])
            labels.append(batch[1])
    return images, labels
