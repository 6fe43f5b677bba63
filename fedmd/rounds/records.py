"""What one round hands from stage to stage. A message is a batch of samples, or one client's model update."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedmd.audit.entries import JudgedMessage
from fedmd.types import RefusedNode, Rejection, RoundReport, Verdicts

Ids = NDArray[np.int64]
Unit = Literal["sample", "update"]  # what there is one verdict on


class Message(Protocol):
    """What one client sent in one round, after validation; `content` is the SHA-256 of it as it came."""

    @property
    def client(self) -> int:
        """Who sent it."""

    @property
    def content(self) -> str | None:
        """The SHA-256 of it as it came."""


M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Collected(Generic[M]):
    """What came of asking a round's clients: valid messages in the order of their clients, and the rest.

    `nodes` maps clients to the fingerprint of the key of the node that answered for them, where nodes have keys;
    `refused_nodes` are those not let in since the round before. `wall_s` are seconds that clients say they spent.
    """

    messages: tuple[M, ...]
    rejections: tuple[Rejection, ...]
    bytes_received: int
    nodes: Mapping[int, str] = field(default_factory=dict)
    refused_nodes: tuple[RefusedNode, ...] = ()
    wall_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Admitted(Generic[M]):
    """A round's messages, sorted: `messages` go on to be judged, those of clients in quarantine do not.

    `released` maps clients that left quarantine as the round began to the reason; `requests` are the operators'
    requests that were looked at (client, round since which it was in quarantine).
    """

    round: int
    messages: tuple[M, ...]
    in_quarantine: tuple[M, ...]
    collected: Collected[M]
    released: Mapping[int, str]
    requests: frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Judged(Generic[M]):
    """The defence's word on N units (samples, or updates) of the admitted `messages`, before the model moves.

    `clients` [N], `index` [N] (position in its message) and `labels` [N] (claimed; -1 where there is none) name the
    units behind `verdicts` [N]. `for_audit` says the same message by message, in their order.
    """

    messages: tuple[M, ...]
    clients: Ids
    index: Ids
    labels: Ids
    verdicts: Verdicts
    for_audit: tuple[JudgedMessage, ...]
    wall_s: Mapping[str, float]


@dataclass(frozen=True)
class Learned:
    """What a step on the judged round did: its loss (None: no step, or none that the server could measure).

    `undone`: why the model is as it was all the same.
    """

    loss: float | None = None
    wall_s: Mapping[str, float] = field(default_factory=dict)
    undone: str | None = None


@dataclass(frozen=True)
class RoundResult(Generic[M]):
    """A round's report together with what it was made from (for figures; not kept by the loop)."""

    report: RoundReport
    judged: Judged[M]
