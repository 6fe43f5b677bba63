"""The gate of mode=update: which clients' updates a strategy gets to see, and the record before it aggregates them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
from torch import Tensor

from fedmd.audit.entry import Entry
from fedmd.audit.quarantine_store import Shelf
from fedmd.audit.trail import AuditTrail
from fedmd.audit.update_round import ToldUpdate, UpdateRound, update_entries
from fedmd.config import QuarantineConfig
from fedmd.defense.updates.evidence import outlying
from fedmd.defense.updates.screen import UpdateVerdict, decisive
from fedmd.rounds.gate import Admitted, Closed, Gate


class Update(Protocol):
    """One client's update as it arrived; `content` is the SHA-256 of it, `tensors` the model that was sent."""

    @property
    def client(self) -> int: ...

    @property
    def content(self) -> str | None: ...

    def tensors(self) -> dict[str, Tensor]: ...


class UpdateGuard(Gate[Update]):
    """The last `losses` values of a verdict are no discrepancies but losses, where those are screened too."""

    def __init__(
        self,
        config: QuarantineConfig | None = None,
        *,
        trail: AuditTrail | None = None,
        shelf: Shelf | None = None,
        losses: int = 0,
    ) -> None:
        super().__init__(config, trail=trail, shelf=shelf)
        self._losses = losses

    def settle(self, admitted: Admitted[Update], verdicts: Mapping[int, UpdateVerdict], version: int) -> Closed:
        """Weigh the evidence, keep aside, record. When this returns, everything about the round is on disk.

        `verdicts` by client are those on every update `admitted.heard`, or none at all where nobody screens. `version`
        counts the aggregations behind the model that the updates began from.
        """
        weighed = self.quarantine
        if self._config.name == "evidence" and verdicts:
            scores = np.array([outlying(verdict) for verdict in verdicts.values()])
            weighed = weighed.after(admitted.round, np.array([*verdicts]), scores, scores, self._config)

        def tell(aside: Mapping[int, str]) -> list[Entry]:
            return update_entries(
                UpdateRound(
                    admitted.round,
                    version,
                    [self._told(update, verdicts.get(update.client)) for update in admitted.heard],
                    [(update.client, update.content) for update in admitted.aside],
                    admitted.rejections,
                    aside,
                    weighed.evidence.nats,
                    admitted.nodes,
                )
            )

        return self._close(admitted, weighed, tell)

    def _told(self, update: Update, verdict: UpdateVerdict | None) -> ToldUpdate:
        if verdict is None:
            return ToldUpdate(update.client, update.content)
        told = ToldUpdate(update.client, update.content, verdict.action, reason=verdict.reason or None)
        if not verdict.discrepancies:
            return told
        which, limit = decisive(verdict.discrepancies, verdict.limits)
        loss = which >= len(verdict.discrepancies) - self._losses
        return replace(
            told,
            discrepancy=verdict.discrepancies[0 if loss else which],
            score=verdict.discrepancies[which] if loss else None,
            threshold=limit if math.isfinite(limit) else None,
        )

    def _tensors(self, message: Update) -> dict[str, Tensor]:
        return message.tensors()
