"""The rounds of mode=stream: clients send samples, the server screens them and learns online."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from flwr.serverapp import Grid

from fedmd.attacks.coalition import Coalition
from fedmd.config import RunConfig
from fedmd.data.federated import FederatedData
from fedmd.flower.client.attack_mod import coalition_of
from fedmd.flower.server.streaming import FlowerCollector
from fedmd.flower.wire import Expected
from fedmd.flower.wire.model_exchange import Exchange
from fedmd.rounds.checkpoint import Start
from fedmd.rounds.gate import Guard
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.services import guarding, save_models
from fedmd.rounds.session import RoundResult, run_session
from fedmd.storage import Saved
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Placement
from fedmd.types import Action, ImageSet, RoundReport, Strip

_STRIP_IMAGES = 8


class StreamRounds:
    """See `fedmd.runs.federation.Rounds`."""

    def __init__(
        self, grid: Grid, data: FederatedData, trained: BurnIn, placement: Placement, exchange: Exchange, folder: Path
    ) -> None:
        self._data = data
        self._learner = OnlineLearner(data.config, data.images, data.split, trained, placement)
        self.burn_in_accuracy = self._learner.accuracy()
        self.burn_in_attack_success = self._learner.attack_success()
        self.coalition = coalition_of(data, folder)
        self.strip: Strip | None = None
        self.rivals = list(self._learner.pipeline.rivals)
        self._collect = FlowerCollector(grid, data.config, exchange, _expected(data.config, data.images))
        self._collect.connect()
        self._guard: Guard | None = None

    def run(
        self,
        on_report: Callable[[RoundReport], None],
        folder: Path,
        start: Start | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """All rounds from the start on, in order, each in the folder's audit trail before the model moves."""
        config, start = self._data.config, start or Start()
        self._collect.session = start.session
        if (saved := start.saved) is not None:
            self._learner.restore(saved["learner"])
            self.coalition.blackboard.restore(saved["blackboard"])
            self.strip = None if saved["strip"] is None else Strip(*(t.numpy() for t in saved["strip"]))
        with guarding(config, folder, saved and saved["guard"], start.round) as guard:
            self._guard = guard
            on_start()
            session = run_session(config, self._learner, self._collect, self.coalition.phase, guard, first=start.round)
            for result in session:
                if self.coalition.is_active(result.report.round):
                    self.strip = _strip(self._data, self.coalition, result) or self.strip
                on_report(result.report)
        if config.quarantine.name != "none":
            save_models(self._learner, folder)

    def state(self) -> Saved:
        """See `Rounds.state`."""
        assert self._guard is not None
        strip = self.strip
        return {
            "learner": self._learner.state(),
            "guard": self._guard.state(),
            "blackboard": self.coalition.blackboard.state(),
            "strip": strip and [torch.tensor(part) for part in (strip.clean, strip.poisoned, strip.corrected)],
        }


def _expected(config: RunConfig, images: ImageSet) -> Expected:
    channels, height, width = images.images.shape[1:]
    return Expected((channels, height, width), images.classes, config.stream.batch_size)


def _strip(data: FederatedData, coalition: Coalition, result: RoundResult) -> Strip | None:
    """A few of a member's samples as it held them, as it sent them and as the server learned from them.

    Only for accumulative rounds, whose honest originals are the member's own stream. A rejected sample is black.
    """
    if result.learned is None or result.report.phase != "accumulative":
        return None
    judged = set(result.learned.clients.tolist()) & set(coalition.members)  # not those in quarantine
    batch = next((batch for batch in result.batches if batch.client in judged), None)
    if batch is None:
        return None
    clean = data.streams.batch(batch.client, batch.round).images
    screened, kept = result.learned.screened, result.learned.screened.verdicts.actions != Action.REJECTED
    learned = np.zeros((len(kept), *batch.images.shape[1:]), np.uint8)
    learned[kept] = np.rint(screened.x.float().cpu().numpy() * 255).astype(np.uint8)
    mine = np.flatnonzero(result.learned.clients == batch.client)
    shown = min(_STRIP_IMAGES, len(clean), len(batch.images))  # a member may send fewer or more than its stream has
    return Strip(clean[:shown], batch.images[:shown], learned[mine[:shown]])
