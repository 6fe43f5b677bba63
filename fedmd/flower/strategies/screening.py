"""Discrepancy-aware update screening: a Flower strategy round any other, for anybody's ServerApp.

    strategy = DiscrepancyScreening(FedAvg(fraction_train=0.5), model=model, probe=probe_loader)
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=50)

Screening model updates by eq (10), and correcting them, is an extension of ours: the paper screens samples.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from logging import INFO, WARNING
from typing import Literal, get_args

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from fedmd.defense.history import History, Lag, Snapshot
from fedmd.defense.updates.limits import Limits, UpdateThreshold, as_threshold, robust_threshold
from fedmd.defense.updates.screen import Probe, UpdateScreen, UpdateVerdict, excess
from fedmd.flower.strategies.delegating import Wrapped
from fedmd.flower.strategies.replies import (
    Layout,
    array_record,
    commonest,
    in_order,
    layout,
    metric_record,
    read_global,
    read_state,
    slots_of,
)
from fedmd.types import Action

ScreeningAction = Literal["reject", "correct", "weight"]
OnVerdicts = Callable[[int, tuple[UpdateVerdict, ...]], None]


class DiscrepancyScreening(Wrapped):
    """Measures every client's update by its discrepancy (10) and hands `strategy` what is left of the round.

    Args:
        strategy: the inner strategy; samples clients, configures rounds and aggregates as ever.
        model: a net whose state dict has the keys, shapes and dtypes of the arrays that are trained; copied.
        probe: trusted images no client sent: a tensor, a DataLoader of them or of (images, labels); read once, and
            labels are not looked at unless `loss_threshold` is set.
        threshold: the largest D in nats, or a function that gives the round's limits; by default `robust_threshold`,
            outliers among the round's clients.
        history: the model to compare with, or several: an update is suspicious if it is outside the limits of any, and
            no update is asked the probe twice. By default the global model of three rounds ago and the first one.
        loss_threshold: limits of every candidate's mean loss on the probe, e.g. `partial(robust_threshold,
            tails="upper")`: a second extension, which needs labels and is no discrepancy. Off by default.
        action: what happens to an update outside the limits. "reject": it is left out. "correct": one above the upper
            limit is shortened to the largest scale that is not, in the reply itself, so that no copy of it is held; it
            is left out if there is none, and so is one below the lower limit. "weight": its num-examples are multiplied
            by limit / D (or D / limit), which only matters to strategies that weight by them.
        on_verdicts: called with (round, verdicts in the order of the replies) after every round; the last round's are
            also in `verdicts`.
        max_examples: replies that claim more num-examples are left out; a weighted mean believes whatever it is told.

    Updates within the limits are handed on as the very messages that came, so a round of nothing else is the inner
    strategy's own, bit for bit. A reply that is an error, or whose records, keys, shapes, dtypes, values or
    num-examples are not sane, is left out with the reason in its verdict, and never ends the run. When nothing is left,
    the inner strategy gets an empty round and Flower keeps the global model. A strategy with a minimum (Bulyan: 4f + 3
    replies) may skip a round after rejections; the global model is kept then too.

    One candidate model is in memory at a time: what screening adds does not grow with the number of clients.

    Raises:
        ValueError: an argument is out of its range, or the arrays to train are not the model's.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        model: nn.Module,
        probe: Probe,
        threshold: float | UpdateThreshold = robust_threshold,
        history: History | Sequence[History] | None = None,
        loss_threshold: UpdateThreshold | None = None,
        action: ScreeningAction = "reject",
        on_verdicts: OnVerdicts | None = None,
        max_examples: float = math.inf,
    ) -> None:
        if action not in get_args(ScreeningAction):
            raise ValueError(f"action must be one of {', '.join(get_args(ScreeningAction))}, got {action!r}")
        super().__init__(strategy)
        self.verdicts: tuple[UpdateVerdict, ...] = ()
        if history is None:
            history = (Lag(3), Snapshot())
        self.histories = tuple(history) if isinstance(history, Sequence) else (history,)
        self._screen = UpdateScreen(model, probe, self.histories, measures_loss=loss_threshold is not None)
        self._slots = slots_of(self._screen.own)
        self._thresholds = [as_threshold(threshold)] * len(self.histories)
        if loss_threshold is not None:
            self._thresholds.append(loss_threshold)
        self._action = action
        self._on_verdicts = on_verdicts
        self._weight_key = str(getattr(strategy, "weighted_by_key", "num-examples"))
        self._max_examples = max_examples

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global model, then let the inner strategy configure the round."""
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if shapes != {name: shape for name, (shape, _) in self._slots.items()}:
            raise ValueError("model must have the keys and shapes of the arrays to train: pass the net they come from")
        self._screen.start_round(read_global(arrays))
        self._names = list(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, then let the inner strategy aggregate what is left, in the order it came."""
        replies = list(replies)
        if not self._screen.started:
            raise RuntimeError("configure_train must come before aggregate_train")
        measured = self._measure(replies)
        found = [value for value in measured if isinstance(value, tuple)]
        limits = tuple(of([values[i] for values in found]) for i, of in enumerate(self._thresholds))
        kept: list[Message] = []
        verdicts: list[UpdateVerdict] = []
        for reply, value in zip(replies, measured, strict=True):
            node = reply.metadata.src_node_id
            if isinstance(value, str):
                verdict = UpdateVerdict(node, (), (), 0.0, Action.REJECTED, value, limits)
            elif excess(value, limits) <= 0:
                verdict = UpdateVerdict(node, value, value, 1.0, Action.ACCEPTED, "", limits)
            else:
                verdict = self._act(reply, value, limits)
            verdicts.append(verdict)
            if verdict.action != Action.REJECTED:
                in_order(array_record(reply), self._names)
                kept.append(reply)
        self.verdicts = tuple(verdicts)
        self._report(server_round)
        return super().aggregate_train(server_round, kept)

    def _measure(self, replies: list[Message]) -> list[tuple[float, ...] | str]:
        """For every reply its discrepancies, or the reason why it has none."""
        layouts: list[Layout | str] = []
        for reply in replies:
            try:
                layouts.append(layout(reply, self._weight_key, self._max_examples))
            except ValueError as error:
                layouts.append(str(error))
        usual = [each for each in layouts if not isinstance(each, str)]
        expected = commonest(usual) if usual else None
        measured: list[tuple[float, ...] | str] = []
        for reply, found in zip(replies, layouts, strict=True):
            if isinstance(found, str):
                measured.append(found)
            elif found != expected:
                measured.append("its records have other names or lengths than most replies'")
            else:
                try:
                    values = self._screen.measure(read_state(array_record(reply), self._slots))
                    measured.append(values if math.inf not in values else "its answers to the probe are not finite")
                except ValueError as error:
                    measured.append(str(error))
        return measured

    def _act(self, reply: Message, values: tuple[float, ...], limits: tuple[Limits, ...]) -> UpdateVerdict:
        """What `action` asks for, on an update outside the limits."""
        node, action, record = reply.metadata.src_node_id, Action.CORRECTED, array_record(reply)
        below = any(value < limit.lower for value, limit in zip(values, limits, strict=True))
        reason = self._screen.explain(values, limits)
        if self._action == "weight" and (share := math.exp(-excess(values, limits))) > 0:
            metrics = metric_record(reply)
            metrics[self._weight_key] = float(metrics[self._weight_key]) * share  # type: ignore[arg-type]
            return UpdateVerdict(node, values, values, share, action, reason, limits)
        if self._action == "correct" and not below:
            scale, after = self._screen.correct(read_state(record, self._slots), limits)
            if scale > 0:
                for name, tensor in self._screen.own.items():
                    record[name] = Array(tensor.cpu().numpy())
                return UpdateVerdict(node, values, after, scale, action, reason, limits)
        return UpdateVerdict(node, values, (), 0.0, Action.REJECTED, reason, limits)

    def _report(self, server_round: int) -> None:
        for verdict in self.verdicts:
            if verdict.action != Action.ACCEPTED:
                log(WARNING, "screening: node %s %s, %s", verdict.node, verdict.action.name.lower(), verdict.reason)
        if self._on_verdicts is not None:
            self._on_verdicts(server_round, self.verdicts)

    def summary(self) -> None:
        """Log what is screened, then the inner strategy's summary."""
        log(INFO, "\t├──> Discrepancy screening: action %s", self._action)
        super().summary()
