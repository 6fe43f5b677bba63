"""Who is learned from no longer, and since when: a pure state that one round's scores turn into the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedmd.config import QuarantineConfig
from fedmd.defense.evidence import Evidence, Ranks
from fedmd.storage import Saved


@dataclass(frozen=True)
class Quarantine:
    """The evidence against every client, and the round in which each quarantined one was (`since`)."""

    evidence: Evidence = field(default_factory=Evidence)
    since: Mapping[int, int] = field(default_factory=dict)

    def after(self, round: int, clients: NDArray[np.int64], ranks: Ranks, config: QuarantineConfig) -> "Quarantine":
        """With the `ranks` of N scores of `round`, sent by `clients` [N]; who passes the limit is in from it on."""
        evidence = self.evidence.after(clients, ranks, config.shift)
        caught = {client: round for client in evidence.nats if evidence.of(client) > config.limit}
        return Quarantine(evidence, {**caught, **self.since})

    def after_excess(self, round: int, clients: frozenset[int], config: QuarantineConfig) -> "Quarantine":
        """After `clients` sent more than may be sent: half the limit each, so that the third time is one too many."""
        nats = {client: self.evidence.of(client) + config.limit / 2 for client in clients}
        evidence = Evidence({**self.evidence.nats, **nats})
        caught = {client: round for client in clients if evidence.of(client) > config.limit}
        return Quarantine(evidence, {**caught, **self.since})

    def expired(self, round: int, config: QuarantineConfig) -> frozenset[int]:
        """The clients whose time is over when `round` begins."""
        if config.rounds is None:
            return frozenset()
        return frozenset(client for client, since in self.since.items() if round > since + config.rounds)

    def without(self, clients: frozenset[int]) -> "Quarantine":
        """`clients` are out, and begin anew."""
        since = {client: round for client, round in self.since.items() if client not in clients}
        return replace(self, evidence=self.evidence.without(clients), since=since)

    def state(self) -> Saved:
        """Pairs of a client and its evidence (nats), and of a client and its round."""
        return {"evidence": list(self.evidence.nats.items()), "since": list(self.since.items())}

    @classmethod
    def of(cls, saved: Saved) -> Self:
        """The quarantine whose `state` this is."""
        return cls(Evidence(dict(saved["evidence"])), dict(saved["since"]))
