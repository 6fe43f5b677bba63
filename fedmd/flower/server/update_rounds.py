"""The rounds of mode=update: clients train, a Flower strategy aggregates, perhaps behind the screening.

The mode is an extension of ours: the papers' defence screens samples.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedmd.data.federated import FederatedData
from fedmd.flower.client.update_mod import update_coalition_of
from fedmd.flower.server.client_grid import ClientGrid
from fedmd.flower.server.model_records import expected_update
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.server.update_session import UpdateSession, silent
from fedmd.flower.strategies.catalogue import build_strategy
from fedmd.flower.strategies.state import restore_strategy, strategy_state
from fedmd.flower.wire.model_exchange import Exchange
from fedmd.rounds.checkpoint import Start
from fedmd.rounds.global_model import GlobalModel
from fedmd.rounds.services import guarding_updates
from fedmd.rounds.update_guard import UpdateGuard
from fedmd.storage import Saved
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Placement
from fedmd.types import RoundReport, Strip


class UpdateRounds:
    """See `fedmd.runs.federation.Rounds`."""

    def __init__(
        self, grid: Grid, data: FederatedData, trained: BurnIn, placement: Placement, exchange: Exchange, folder: Path
    ) -> None:
        self._data = data
        self._trained = trained
        self.server = GlobalModel(data.config, data.images, data.split, trained, placement)
        self.burn_in_accuracy = self.server.accuracy()
        self.burn_in_attack_success = self.server.attack_success()
        self.coalition = update_coalition_of(data, folder)
        self.strip: Strip | None = None  # no image travels
        self.rivals: list[str] = []
        self._nodes = Nodes(grid, data.config, exchange.folder)
        self._nodes.connect()
        self._grid, self._exchange = grid, exchange
        self._guard: UpdateGuard | None = None
        self._session: UpdateSession | None = None
        self._strategy: Strategy | None = None

    def run(
        self,
        on_report: Callable[[RoundReport], None],
        folder: Path,
        start: Start | None = None,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        """All rounds from the start on, in order, each in the audit trail before the strategy aggregates it."""
        config, data, start, arrays = self._data.config, self._data, start or Start(), None
        saved = start.saved
        most = config.limits.max_samples or config.local.samples or len(data.split.stream)
        expected = expected_update(self.server, most)
        with guarding_updates(config, folder, saved and saved["guard"], start.round) as guard, silent():
            clients = ClientGrid(
                self._grid, self._nodes, self._exchange, self.server, expected, config.limits, guard.admit
            )
            session = UpdateSession(config, clients, self.server, guard, self.coalition.phase, on_report)
            strategy = build_strategy(config, self.server, self._trained.snapshots, session.judged, session.settled)
            self._guard, self._session, self._strategy = guard, session, strategy
            if saved is not None:
                restore_strategy(strategy, saved["strategy"])
                self.coalition.blackboard.restore(saved["blackboard"])
                arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in saved["arrays"].items()})
            session.run(strategy, start.round, arrays, on_start)

    def state(self) -> Saved:
        """See `Rounds.state`. The global model in the strategy's own number format, which may be finer."""
        assert self._guard is not None and self._session is not None and self._strategy is not None
        return {
            "arrays": {name: torch.from_numpy(array.numpy()) for name, array in self._session.arrays.items()},
            "strategy": strategy_state(self._strategy),
            "guard": self._guard.state(),
            "blackboard": self.coalition.blackboard.state(),
        }
