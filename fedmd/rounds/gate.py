"""What stands between a round's messages and the model: quarantine, and the audit trail that is written first."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedmd.audit import release_requests as requests
from fedmd.audit.chain import Position
from fedmd.audit.entry import Entry
from fedmd.audit.quarantine_store import Kept, Shelf, contents, discard
from fedmd.audit.refusal import turned_away
from fedmd.audit.stream_round import StreamRound, stream_entries
from fedmd.audit.trail import AuditTrail
from fedmd.config import QuarantineConfig
from fedmd.defense.quarantine import Quarantine
from fedmd.rounds.learner import NO_VERDICTS, Judged
from fedmd.storage import Saved
from fedmd.types import Action, Rejection, Screened, Stranger, StreamBatch


class Message(Protocol):
    """What one client sent in one round, after validation: samples or an update."""

    @property
    def client(self) -> int: ...


M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Admitted(Generic[M]):
    """A round's messages, sorted: those `heard` go on to be judged, those `aside` do not."""

    round: int
    heard: tuple[M, ...]
    aside: tuple[M, ...]
    rejections: tuple[Rejection, ...]
    nodes: Mapping[int, str]
    released: Mapping[int, str]
    settled: frozenset[requests.Release]
    strangers: tuple[Stranger, ...] = ()


@dataclass(frozen=True)
class Closed:
    """A round that is on disk: whose messages are not to be used and why, and who of them was `caught` just now."""

    rejections: tuple[Rejection, ...] = ()
    quarantined: tuple[int, ...] = ()
    caught: frozenset[int] = frozenset()


class Gate(ABC, Generic[M]):
    """Keeps what quarantined clients send on the `shelf`; tells the `trail` everything before the model moves.

    Without a shelf their messages are dropped, without a trail nothing is recorded. What cannot be done again, deleting
    a message and taking an operator's request down, waits for `commit`: a run that goes on from a checkpoint repeats
    the rounds since, and must find again what they found.
    """

    def __init__(
        self, config: QuarantineConfig | None = None, *, trail: AuditTrail | None = None, shelf: Shelf | None = None
    ) -> None:
        self.quarantine = Quarantine()
        self._config = config or QuarantineConfig()
        self._trail = trail
        self._shelf = shelf
        self._evicted: list[Kept] = []  # recorded, and on the shelf until `commit`
        self._settled: frozenset[requests.Release] = frozenset()  # fulfilled, and there until `commit`

    @abstractmethod
    def _tensors(self, message: M) -> dict[str, torch.Tensor]:
        """What is kept of a message that is put aside."""

    def admit(
        self,
        round: int,
        messages: Sequence[M],
        rejections: Sequence[Rejection] = (),
        nodes: Mapping[int, str] | None = None,
        strangers: Sequence[Stranger] = (),
    ) -> Admitted[M]:
        """Release whose time is over or whom an operator let go, then take the quarantined clients' messages out.

        `nodes` maps clients to the fingerprint of the key of the node that answered for them, where nodes have keys;
        `strangers` are only recorded.
        """
        released = dict.fromkeys(self.quarantine.served(round, self._config), "its time is over")
        asked = requests.pending(self._shelf.folder) - self._settled if self._shelf is not None else frozenset()
        # A round that is repeated after a crash may lie before the quarantine that a request is about: it waits.
        asked = frozenset((client, since) for client, since in asked if since < round)
        wanted = {client for client, _ in asked} & set(self.quarantine.since)
        released |= dict.fromkeys(wanted, "released by an operator")
        self.quarantine = self.quarantine.without(frozenset(released))
        aside = tuple(message for message in messages if message.client in self.quarantine.since)
        heard = tuple(message for message in messages if message.client not in self.quarantine.since)
        return Admitted(round, heard, aside, tuple(rejections), nodes or {}, released, asked, tuple(strangers))

    def _close(
        self, admitted: Admitted[M], weighed: Quarantine, tell: Callable[[Mapping[int, str]], list[Entry]]
    ) -> Closed:
        """Take over the `weighed` quarantine, keep aside, record. When this returns, the whole round is on disk.

        `tell` makes the entries of the round's messages from the reasons why some clients' are put aside.
        """
        round, before, self.quarantine = admitted.round, self.quarantine, weighed
        caught = frozenset(weighed.since) - frozenset(before.since)
        aside = {client: self._reason(client) for client in sorted({*caught, *(m.client for m in admitted.aside)})}
        for message in (*admitted.heard, *admitted.aside):
            if message.client in aside and self._shelf is not None:
                self._shelf.put(message.client, round, self._tensors(message))
        evicted = self._shelf.surplus(self._evicted) if self._shelf is not None and aside else []
        if self._trail is not None:
            events = [Entry("quarantine", "released", round, c, reason=r) for c, r in sorted(admitted.released.items())]
            nats = weighed.evidence.of
            events += [Entry("quarantine", "quarantined", round, c, evidence=nats(c)) for c in sorted(caught)]
            events += [Entry("quarantine", "evicted", k.round, k.client, reason="the shelf is full") for k in evicted]
            self._trail.append([*turned_away(round, admitted.strangers), *tell(aside), *events])
        self._evicted += evicted
        self._settled |= admitted.settled
        rejections = [*admitted.rejections, *(Rejection(client, aside[client]) for client in aside)]
        return Closed(tuple(sorted(rejections, key=lambda rejection: rejection.client)), tuple(aside), caught)

    def commit(self) -> None:
        """The rounds so far will not be repeated: do what waited for that."""
        discard(self._evicted)
        if self._shelf is not None:
            requests.settle(self._shelf.folder, self._settled)
        self._evicted, self._settled = [], frozenset()

    def state(self) -> Saved:
        """The quarantine, where the trail ends, and what waits for `commit`."""
        position = None if self._trail is None else self._trail.position
        return {
            "quarantine": self.quarantine.state(),
            "trail": None if position is None else [position.seq, position.hash],
            "evicted": [[batch.client, batch.round] for batch in self._evicted],
            "settled": [[client, since] for client, since in sorted(self._settled)],
        }

    def restore(self, saved: Saved, round: int) -> None:
        """Go on with `round` from what `state` returned: all that came later becomes void or goes.

        Raises ValueError when the trail has not got that far, or is another.
        """
        self.quarantine = Quarantine.of(saved["quarantine"])
        if self._trail is not None:
            self._trail.rewind(Position(*saved["trail"]), f"the run goes on from a checkpoint, with round {round}")
        if self._shelf is not None:
            evicted = {(client, kept) for client, kept in saved["evicted"]}
            on_it = contents(self._shelf.folder)
            self._evicted = [k for k in on_it if k.round >= round or (k.client, k.round) in evicted]
            self._settled = frozenset((client, since) for client, since in saved["settled"])
            self.commit()

    def _reason(self, client: int) -> str:
        return f"in quarantine since round {self.quarantine.since[client]}"


@dataclass(frozen=True)
class Settled:
    """What may be learned (None: nothing was there to judge), and what became of the others."""

    judged: Judged | None
    rejections: tuple[Rejection, ...]
    quarantined: tuple[int, ...]


class Guard(Gate[StreamBatch]):
    """The gate of mode=stream."""

    def settle(
        self,
        admitted: Admitted[StreamBatch],
        judged: Judged | None,
        version: int,
        trusted: Callable[[], NDArray[np.float64]],
    ) -> Settled:
        """Weigh the evidence, keep aside, record. When this returns, everything about the round is on disk.

        `version` counts the online steps of the model that judged; `trusted` returns the detector's scores of the
        trusted set under it, and is only called, and paid for, when evidence is asked for.
        """
        weighed = self.quarantine
        if self._config.name == "evidence" and judged is not None:
            scores = judged.screened.verdicts.before
            weighed = weighed.after(admitted.round, judged.clients, scores, trusted(), self._config)

        def tell(aside: Mapping[int, str]) -> list[Entry]:
            verdicts = judged.screened.verdicts if judged else NO_VERDICTS
            return stream_entries(
                StreamRound(
                    admitted.round,
                    version,
                    admitted.heard,
                    verdicts,
                    admitted.aside,
                    admitted.rejections,
                    aside,
                    weighed.evidence.nats,
                    admitted.nodes,
                )
            )

        closed = self._close(admitted, weighed, tell)
        kept = None if judged is None else _without(judged, closed.caught)
        return Settled(kept, closed.rejections, closed.quarantined)

    def _tensors(self, message: StreamBatch) -> dict[str, torch.Tensor]:
        return {"images": torch.from_numpy(message.images.copy()), "labels": torch.from_numpy(message.labels.copy())}


def _without(judged: Judged, clients: frozenset[int]) -> Judged:
    """`judged` with every sample of `clients` rejected; the very same object when there are none."""
    if not clients:
        return judged
    out = np.isin(judged.clients, sorted(clients))
    screened, verdicts = judged.screened, judged.screened.verdicts
    staying = torch.from_numpy(~out[verdicts.actions != Action.REJECTED]).to(screened.x.device)
    actions = np.where(out, int(Action.REJECTED), verdicts.actions)
    kept = Screened(screened.x[staying], screened.y[staying], replace(verdicts, actions=actions))
    return replace(judged, screened=kept)
