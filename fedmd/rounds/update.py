"""The server of mode=update: clients send what they trained; it is screened, and a strategy aggregates what is left.

The mode is an extension of ours: the papers' defence screens samples.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Protocol, overload

import numpy as np
import torch
from torch import Tensor

from fedmd.audit.entries import JudgedMessage, Score
from fedmd.defense.evidence import Ranks, ranked_among
from fedmd.defense.updates.discrepancy import State
from fedmd.defense.updates.screen import UpdateScreen, UpdateVerdict, decisive, excess
from fedmd.rounds.model import ServerModel
from fedmd.rounds.records import Judged, Learned, Unit
from fedmd.storage import Saved
from fedmd.types import Action, Verdicts

log = getLogger(__name__)
NO_LABEL = -1  # an update has none


class Update(Protocol):
    """One client's update as it arrived: the model it trained on so many `examples`."""

    @property
    def client(self) -> int:
        """Who sent it."""

    @property
    def content(self) -> str | None:
        """The SHA-256 of it as it came."""

    @property
    def examples(self) -> int:
        """How many samples it claims to be trained on."""

    def tensors(self) -> dict[str, Tensor]:
        """The trained model."""


class _States(Sequence[tuple[int, State | str]]):
    """The updates' clients and tensors, which are looked up each time: those of one update at a time are in memory."""

    def __init__(self, updates: Sequence[Update]) -> None:
        self._updates = updates

    def __len__(self) -> int:
        return len(self._updates)

    @overload
    def __getitem__(self, at: int) -> tuple[int, State | str]: ...

    @overload
    def __getitem__(self, at: slice) -> "_States": ...

    def __getitem__(self, at: int | slice) -> "tuple[int, State | str] | _States":
        if isinstance(at, slice):
            return _States(self._updates[at])
        return self._updates[at].client, self._updates[at].tensors()


@dataclass(frozen=True)
class Contribution:
    """What of an update goes into the aggregate: with which weight, and the model in its place where it was changed."""

    update: Update
    examples: float
    corrected: State | None = None


class Aggregator(Protocol):
    """Makes the next global model of a round's contributions. `state` is θ_t in its own number format."""

    @property
    def state(self) -> State:
        """The global model."""

    def aggregate(self, contributions: Sequence[Contribution]) -> bool:
        """Whether the model has moved. Nothing moves it but at least one contribution."""

    def undo(self) -> None:
        """Be as before the last `aggregate`, in everything that is remembered."""

    def memory(self) -> Saved:
        """What `restore` needs to go on from here."""

    def restore(self, saved: Saved) -> None:
        """Put back what `memory` returned."""


@dataclass(frozen=True)
class JudgedUpdates(Judged[Update]):
    """With what is left of the updates to learn from; `screened` are the screening's verdicts, () without one."""

    contributions: tuple[Contribution, ...]
    screened: tuple[UpdateVerdict, ...]


class UpdateServer:
    """A global model that a strategy moves; see `fedmd.rounds.protocols.Server`.

    `screen` is None where nobody screens; then every update is accepted unmeasured.
    """

    unit: Unit = "update"
    baselines: Sequence[str] = ()

    def __init__(self, model: ServerModel, aggregator: Aggregator, screen: UpdateScreen | None) -> None:
        self.model = model
        self._aggregator = aggregator
        self._screen = screen
        self.version = 0  # aggregations that moved the model

    def judge(self, messages: Sequence[Update]) -> JudgedUpdates:
        """Screen the updates, if that is the defence; the model stays as it is."""
        started = time.perf_counter()
        verdicts: tuple[UpdateVerdict, ...] = ()
        if self._screen is not None:
            self._screen.start_round(self._aggregator.state)
            verdicts = self._screen.judge(_States(messages))
        n = len(messages)
        return JudgedUpdates(
            tuple(messages),
            np.array([update.client for update in messages], np.int64),
            np.zeros(n, np.int64),
            np.full(n, NO_LABEL, np.int64),
            _unmeasured(n) if self._screen is None else replace(_verdicts(verdicts), canary=self._screen.canary),
            tuple(self._for_audit(*pair) for pair in zip(messages, verdicts or [None] * n, strict=True)),
            {"screening": time.perf_counter() - started} if verdicts else {},
            tuple(self._contributions(messages, verdicts)),
            verdicts,
        )

    def evidence(self, judged: Judged[Update]) -> Ranks | None:
        """How far the round's updates are out of line, ranked among themselves; None where nobody screens."""
        assert isinstance(judged, JudgedUpdates)
        if not judged.screened:
            return None
        scores = np.array([verdict.evidence for verdict in judged.screened])
        return ranked_among(scores, scores) if np.isfinite(scores).all() else None

    def without(self, judged: Judged[Update], clients: frozenset[int]) -> JudgedUpdates:
        """`judged` with the updates of `clients` rejected, whatever the screening said of them."""
        assert isinstance(judged, JudgedUpdates)
        out = np.isin(judged.clients, sorted(clients))
        verdicts = replace(judged.verdicts, actions=np.where(out, int(Action.REJECTED), judged.verdicts.actions))
        staying = tuple(each for each in judged.contributions if each.update.client not in clients)
        return replace(judged, verdicts=verdicts, contributions=staying)

    def tensors(self, message: Update) -> dict[str, Tensor]:
        """The trained model."""
        return message.tensors()

    def learn(self, judged: Judged[Update]) -> Learned:
        """Aggregate what is left of the round; an aggregate that nobody could train from is undone.

        One finite update of 3e38 is enough for such a one where nobody screens. Honest clients would answer it with
        numbers that are not finite, and be refused for that in every round to come.
        """
        assert isinstance(judged, JudgedUpdates)
        started, undone = time.perf_counter(), None
        if self._aggregator.aggregate(judged.contributions):
            self.model.load(self._aggregator.state)
            if (undone := self._unusable()) is None:
                self.version += 1
            else:
                self._aggregator.undo()
                self.model.load(self._aggregator.state)
                log.warning("%s; the model stays as it was", undone)
        return Learned(wall_s={"step": time.perf_counter() - started}, undone=undone)

    def state(self) -> Saved:
        """All that rounds have changed: what the aggregator and the screen remember, the version."""
        screen = None if self._screen is None else self._screen.save()
        return {"aggregator": self._aggregator.memory(), "screen": screen, "version": self.version}

    def restore(self, saved: Saved) -> None:
        """Put back what `state` of a server of the same configuration returned."""
        self._aggregator.restore(saved["aggregator"])
        if self._screen is not None:
            self._screen.restore(saved["screen"])
        self.version = saved["version"]
        self.model.load(self._aggregator.state)

    def _unusable(self) -> str | None:
        """Why nobody could go on from the aggregate, or the strategy from what it remembers; None where all can."""
        if not all_finite(self._aggregator.memory()):
            return "the aggregate is not finite"
        return None if self.model.answers_finitely() else "the aggregate's answers to trusted images are not finite"

    def _contributions(self, messages: Sequence[Update], verdicts: tuple[UpdateVerdict, ...]) -> Iterator[Contribution]:
        if self._screen is None:
            yield from (Contribution(update, update.examples) for update in messages)
            return
        for update, verdict in zip(messages, verdicts, strict=True):
            if verdict.action == Action.ACCEPTED:
                yield Contribution(update, update.examples)
            elif verdict.action == Action.CORRECTED and self._screen.action == "weight":
                yield Contribution(update, update.examples * verdict.scale)
            elif verdict.action == Action.CORRECTED:
                shortened = self._screen.shortened(update.tensors(), verdict.scale)
                yield Contribution(update, update.examples, {name: t.clone() for name, t in shortened.items()})

    def _for_audit(self, update: Update, verdict: UpdateVerdict | None) -> JudgedMessage:
        """The value that decided, with the limit it came closest to or went beyond."""
        if verdict is None:
            return JudgedMessage(update.client, update.content, [Action.ACCEPTED], [Score()], Score())
        score = Score()
        if verdict.discrepancies:
            assert self._screen is not None
            which, limit = decisive(verdict.discrepancies, verdict.limits)
            is_loss = which >= len(self._screen.histories)
            score = Score(
                verdict.discrepancies[0 if is_loss else which],
                verdict.discrepancies[which] if is_loss else None,
                limit if math.isfinite(limit) else None,
            )
        reason = verdict.reason or None
        return JudgedMessage(update.client, update.content, [verdict.action], [score], score, reason)


def all_finite(saved: object) -> bool:
    """Whether no tensor in a tree of dicts and lists has an infinity or a NaN, in single precision.

    FedAdam's second moment is double, and an update of 3e38 leaves 1e74 there: it would hardly move for 18,000 rounds.
    """
    if isinstance(saved, Tensor):
        return bool(torch.isfinite(saved.float()).all())
    if isinstance(saved, dict | list | tuple):
        return all(map(all_finite, saved.values() if isinstance(saved, dict) else saved))
    return True


def _verdicts(verdicts: tuple[UpdateVerdict, ...]) -> Verdicts:
    """One verdict an update, in their order.

    The score is how far an update's discrepancies, or its loss, go beyond their limits, as a factor; one above 1 is
    acted upon.
    """
    return Verdicts(
        before=np.array([_factor(verdict.excess) for verdict in verdicts], np.float64),
        after=np.array([_factor(excess(v.after, v.limits) if v.after else None) for v in verdicts], np.float64),
        steps=np.zeros(len(verdicts), np.int64),
        actions=np.array([verdict.action for verdict in verdicts], np.int64),
        threshold=1.0 if verdicts else None,
        discrepancy=np.array([v.discrepancies[0] if v.discrepancies else np.nan for v in verdicts], np.float64),
    )


def _unmeasured(n: int) -> Verdicts:
    """Accepted, all of them."""
    nothing = np.full(n, np.nan)
    return Verdicts(nothing, nothing, np.zeros(n, np.int64), np.full(n, Action.ACCEPTED, np.int64), None)


def _factor(excess: float | None) -> float:
    return np.nan if excess is None else float(np.exp(excess))
