"""Discrepancy-aware update screening: a Flower strategy round any other, for anybody's ServerApp.

    strategy = DiscrepancyScreening(FedAvg(fraction_train=0.5), model=model, probe=probe_loader)
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=50)

Screening model updates by eq (10), and correcting them, is an extension of ours: the paper screens samples.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from logging import INFO, WARNING

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import nn

from fedmd.defense.history import History, Lag, Snapshot
from fedmd.defense.updates.discrepancy import State
from fedmd.defense.updates.limits import UpdateThreshold, robust_threshold
from fedmd.defense.updates.screen import Probe, ScreeningAction, UpdateScreen, UpdateVerdict
from fedmd.flower.strategies.delegating import DelegatingStrategy
from fedmd.flower.strategies.replies import (
    Layout,
    array_record,
    commonest,
    in_order,
    layout,
    metric_record,
    read_state,
    slots_of,
)
from fedmd.flower.wire.updates import read_record
from fedmd.types import Action

OnVerdicts = Callable[[int, tuple[UpdateVerdict, ...]], None]


class DiscrepancyScreening(DelegatingStrategy):
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
        super().__init__(strategy)
        self.verdicts: tuple[UpdateVerdict, ...] = ()
        if history is None:
            history = (Lag(3), Snapshot())
        self._screen = UpdateScreen(
            model,
            probe,
            tuple(history) if isinstance(history, Sequence) else (history,),
            threshold=threshold,
            loss_threshold=loss_threshold,
            action=action,
        )
        self._slots = slots_of(self._screen.own)
        self._on_verdicts = on_verdicts
        self._layout: Layout | None = None  # of the replies that were used last
        self._record_name = str(getattr(strategy, "arrayrecord_key", "arrays"))
        self._weight_key = str(getattr(strategy, "weighted_by_key", "num-examples"))
        self._max_examples = max_examples

    @property
    def histories(self) -> tuple[History, ...]:
        """The models that updates are compared with."""
        return self._screen.histories

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember the global model, then let the inner strategy configure the round."""
        shapes = {name: tuple(array.shape) for name, array in arrays.items()}
        if shapes != {name: shape for name, (shape, _) in self._slots.items()}:
            raise ValueError("model must have the keys and shapes of the arrays to train: pass the net they come from")
        self._screen.start_round(read_record(arrays))
        self._names = list(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, then let the inner strategy aggregate what is left, in the order it came."""
        replies = list(replies)
        if not self._screen.started:
            raise RuntimeError("configure_train must come before aggregate_train")
        states = self._read(replies)
        received = [(reply.metadata.src_node_id, state) for reply, state in zip(replies, states, strict=True)]
        self.verdicts = self._screen.judge(received)
        kept: list[Message] = []
        for reply, state, verdict in zip(replies, states, self.verdicts, strict=True):
            if verdict.action == Action.REJECTED or isinstance(state, str):
                continue
            if verdict.action == Action.CORRECTED:
                self._correct(reply, state, verdict)
            in_order(array_record(reply), self._names)
            kept.append(reply)
        self._report(server_round)
        return super().aggregate_train(server_round, kept)

    def _read(self, replies: list[Message]) -> list[State | str]:
        """For every reply the model in it, or the reason why it cannot be used.

        Only replies that hold a model of ours have a say in what replies look like.
        """
        found = [self._read_one(reply) for reply in replies]
        layouts = [each[0] for each in found if not isinstance(each, str)]
        if layouts:
            self._layout = commonest(layouts, self._record_name, self._layout)
        other = "its records have other names or lengths than most replies'"
        return [each if isinstance(each, str) else each[1] if each[0] == self._layout else other for each in found]

    def _read_one(self, reply: Message) -> tuple[Layout, State] | str:
        try:
            found = layout(reply, self._weight_key, self._max_examples)
            return found, read_state(array_record(reply), self._slots)
        except ValueError as error:
            return str(error)

    def _correct(self, reply: Message, state: State, verdict: UpdateVerdict) -> None:
        """Make of the reply, in place, what the verdict leaves of it."""
        if self._screen.action == "weight":
            metrics = metric_record(reply)
            metrics[self._weight_key] = float(metrics[self._weight_key]) * verdict.scale  # type: ignore[arg-type]
            return
        record = array_record(reply)
        for name, tensor in self._screen.shortened(state, verdict.scale).items():
            record[name] = Array(tensor.cpu().numpy())

    def _report(self, server_round: int) -> None:
        for verdict in self.verdicts:
            if verdict.action != Action.ACCEPTED:
                log(WARNING, "screening: node %s %s, %s", verdict.node, verdict.action.name.lower(), verdict.reason)
        if self._on_verdicts is not None:
            self._on_verdicts(server_round, self.verdicts)

    def summary(self) -> None:
        """Log what is screened, then the inner strategy's summary."""
        log(INFO, "\t├──> Discrepancy screening: action %s", self._screen.action)
        super().summary()
