"""What stands between a round's messages and the model: quarantine, and the audit trail that is written first."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from fedmd.audit import quarantine_store, release_requests
from fedmd.audit.chain import Position
from fedmd.audit.entries import Entry, RoundRecord, refused_node_entries, round_entries
from fedmd.audit.quarantine_store import QuarantineStore, StoredMessage
from fedmd.audit.reader import trail_files
from fedmd.audit.trail import FOLDER, AuditTrail, open_trail
from fedmd.config import ConfigError, QuarantineConfig, RunConfig
from fedmd.defense.quarantine import Quarantine
from fedmd.rounds.protocols import Server
from fedmd.rounds.records import Admitted, Collected, Judged, M
from fedmd.storage import Saved
from fedmd.types import IN_QUARANTINE, Rejection


@dataclass(frozen=True)
class Recorded(Generic[M]):
    """A round that is on disk: what may be learned from, whose messages may not and why, and who is in quarantine.

    `alarms` are the clients that were put there in this round.
    """

    judged: Judged[M]
    rejections: tuple[Rejection, ...]
    quarantined: tuple[int, ...]
    alarms: tuple[int, ...] = ()


class Gate(Generic[M]):
    """Keeps what quarantined clients send in the `store`; tells the `trail` everything before the model moves.

    Without a store their messages are dropped, without a trail nothing is recorded. What cannot be done again, deleting
    a message and taking an operator's request down, waits for `commit`: a run that goes on from a checkpoint repeats
    the rounds since, and must find again what they found. `server` is the one whose model is guarded.
    """

    def __init__(
        self,
        config: QuarantineConfig,
        server: Server[M],
        *,
        trail: AuditTrail | None = None,
        store: QuarantineStore | None = None,
    ) -> None:
        self.quarantine = Quarantine()
        self._config = config
        self._server = server
        self._trail = trail
        self._store = store
        self._evicted: list[StoredMessage] = []  # recorded, and in the store until `commit`
        self._requests: frozenset[tuple[int, int]] = frozenset()  # fulfilled, and there until `commit`

    def admit(self, round: int, collected: Collected[M]) -> Admitted[M]:
        """Release whose time is over or whom an operator let go, then take the quarantined clients' messages out."""
        released = dict.fromkeys(self.quarantine.expired(round, self._config), "its time is over")
        asked = release_requests.pending(self._store.folder) - self._requests if self._store else frozenset()
        # A round that is repeated after a crash may lie before the quarantine that a request is about: it waits.
        asked = frozenset((client, since) for client, since in asked if since < round)
        wanted = {client for client, _ in asked} & set(self.quarantine.since)
        released |= dict.fromkeys(wanted, "released by an operator")
        self.quarantine = self.quarantine.without(frozenset(released))
        inside = self.quarantine.since
        return Admitted(
            round,
            tuple(message for message in collected.messages if message.client not in inside),
            tuple(message for message in collected.messages if message.client in inside),
            collected,
            released,
            asked,
        )

    def record(self, admitted: Admitted[M], judged: Judged[M]) -> Recorded[M]:
        """Weigh the evidence, keep aside, write down. When this returns, everything about the round is on disk."""
        round, collected, server, before = admitted.round, admitted.collected, self._server, self.quarantine
        if self._config.name == "evidence" and len(judged.clients) and (found := server.evidence(judged)) is not None:
            self.quarantine = before.after(round, judged.clients, found, self._config)
        if self._config.name == "evidence":
            beyond = frozenset(item.client for item in collected.rejections if item.exceeds_bounds)
            self.quarantine = self.quarantine.after_excess(round, beyond, self._config)
        new = frozenset(self.quarantine.since) - frozenset(before.since)
        kept_aside = sorted({*new, *(message.client for message in admitted.in_quarantine)})
        reasons = {client: f"{IN_QUARANTINE}{self.quarantine.since[client]}" for client in kept_aside}
        evicted = self._keep(admitted, reasons)
        if self._trail is not None:
            about = RoundRecord(
                server.unit,
                round,
                server.version,
                judged.for_audit,
                [(message.client, message.content) for message in admitted.in_quarantine],
                collected.rejections,
                reasons,
                self.quarantine.evidence.nats,
                collected.nodes,
            )
            events = self._events(round, admitted.released, new, evicted)
            self._trail.append([*refused_node_entries(round, collected.refused_nodes), *round_entries(about), *events])
        self._evicted += evicted
        self._requests |= admitted.requests
        rejections = [*collected.rejections, *(Rejection(client, reasons[client]) for client in reasons)]
        return Recorded(
            server.without(judged, new) if new else judged,
            tuple(sorted(rejections, key=lambda rejection: rejection.client)),
            tuple(reasons),
            tuple(sorted(new)),
        )

    def _keep(self, admitted: Admitted[M], reasons: Mapping[int, str]) -> list[StoredMessage]:
        """Store the messages of the clients in `reasons`; what is in the store beyond its bounds after that."""
        if self._store is None or not reasons:
            return []
        for message in (*admitted.messages, *admitted.in_quarantine):
            if message.client in reasons:
                self._store.put(message.client, admitted.round, self._server.tensors(message))
        return self._store.surplus(self._evicted)

    def _events(
        self, round: int, released: Mapping[int, str], new: frozenset[int], evicted: list[StoredMessage]
    ) -> list[Entry]:
        nats, full = self.quarantine.evidence.of, "the quarantine store is full"
        return [
            *(Entry("quarantine", "released", round, c, reason=why) for c, why in sorted(released.items())),
            *(Entry("quarantine", "quarantined", round, c, evidence=nats(c)) for c in sorted(new)),
            *(Entry("quarantine", "evicted", k.round, k.client, reason=full) for k in evicted),
        ]

    def note_undone(self, round: int, reason: str) -> None:
        """Write down that the model is as it was before `round`, and why; no client is to blame for sure."""
        if self._trail is not None:
            self._trail.append([Entry("model", "undone", round, reason=reason, model_version=self._server.version)])

    def commit(self) -> None:
        """The rounds so far will not be repeated: do what waited for that."""
        quarantine_store.discard(self._evicted)
        if self._store is not None:
            release_requests.discard(self._store.folder, self._requests)
        self._evicted, self._requests = [], frozenset()

    @property
    def head(self) -> Position | None:
        """Where the trail ends; None without one."""
        return None if self._trail is None else self._trail.position

    def state(self) -> Saved:
        """The quarantine, where the trail ends, and what waits for `commit`."""
        return {
            "quarantine": self.quarantine.state(),
            "trail": None if (head := self.head) is None else [head.seq, head.hash],
            "evicted": [[message.client, message.round] for message in self._evicted],
            "requests": [[client, since] for client, since in sorted(self._requests)],
        }

    def restore(self, saved: Saved, round: int) -> None:
        """Go on with `round` from what `state` returned: all that came later becomes void or goes.

        Raises ValueError when the trail has not got that far, or is another.
        """
        self.quarantine = Quarantine.of(saved["quarantine"])
        if self._trail is not None:
            self._trail.rewind(Position(*saved["trail"]), f"the run goes on from a checkpoint, with round {round}")
        if self._store is not None:
            evicted = {(client, kept) for client, kept in saved["evicted"]}
            stored = quarantine_store.contents(self._store.folder)
            self._evicted = [m for m in stored if m.round >= round or (m.client, m.round) in evicted]
            self._requests = frozenset((client, since) for client, since in saved["requests"])
            self.commit()


@contextmanager
def open_gate(
    config: RunConfig,
    folder: Path,
    server: Server[M],
    saved: Saved | None = None,
    round: int = 0,
    restart: str | None = None,
) -> Iterator[Gate[M]]:
    """The gate of a new run in `folder`, or of the one whose gate was `saved`, which goes on with `round`.

    What the trail there knows of an earlier run, or of later rounds, becomes void, and stays. `restart` goes on record:
    why a run that had rounds begins again with the first. Raises ConfigError when the trail is not the one that the
    saved gate wrote, and writes nothing where it is missing.
    """
    if saved is not None and not trail_files(folder / FOLDER):
        raise ConfigError(f"resume: the run's audit trail, {folder / FOLDER}, is missing.")
    store = QuarantineStore(
        folder / quarantine_store.FOLDER,
        max_rounds=config.quarantine.max_rounds,
        max_bytes=config.quarantine.max_bytes,
    )
    store.tidy()
    with open_trail(folder, config.audit) as trail:
        kept = store if config.quarantine.name != "none" else None
        gate = Gate(config.quarantine, server, trail=trail, store=kept)
        if saved is not None:
            try:
                gate.restore(saved, round)
            except ValueError as error:
                raise ConfigError(f"resume: {error}.") from error
        else:
            quarantine_store.discard(quarantine_store.contents(store.folder))
            release_requests.discard(store.folder, release_requests.pending(store.folder))
            if trail.position != Position():
                trail.rewind(Position(), restart or "a new run in the same folder")
            trail.append([Entry("run", "started", content=config.digest(), reason=restart)])
        yield gate
