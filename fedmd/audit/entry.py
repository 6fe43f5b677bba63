"""One line of the audit trail, as a plain record: what is true of streams is true of model updates."""

from dataclasses import dataclass, fields
from typing import Literal, Self

from fedmd.types import Json

Kind = Literal["run", "message", "verdict", "quarantine", "replay", "rewind", "rotation"]


@dataclass(frozen=True)
class Entry:
    """A message, a verdict, or something the server did. What an entry has nothing to say about is None.

    kind            action
    run             started
    message         accepted | rejected | quarantined: what became of a client's message as a whole; rejected without a
                    client: of a node's claim to answer for some
    verdict         accepted | corrected | rejected | quarantined: what became of the sample `index` of it, or of the
                    update in it (index 0)
    quarantine      quarantined | released | evicted: of a client, or of its batch of `round`
    replay          accepted | corrected | rejected | learned: a kept batch, judged again later
    rewind          rewound: the records after `position` and before this one are void
    rotation        continued: the first record of the next file

    `node` is the fingerprint of the key of the node that sent the message; `content` the SHA-256 of what it sent;
    `model_version` the number of online steps, or of aggregations, behind the model that judged. `discrepancy`,
    `threshold` and `score` (of a detector other than the discrepancy) in nats; of a message the mean over its samples.
    `evidence` (nats) is what there was against the client after the message.
    """

    kind: Kind
    action: str
    round: int | None = None
    client: int | None = None
    index: int | None = None
    node: str | None = None
    discrepancy: float | None = None
    score: float | None = None
    threshold: float | None = None
    evidence: float | None = None
    reason: str | None = None
    model_version: int | None = None
    content: str | None = None
    position: int | None = None
    previous: str | None = None

    def body(self) -> Json:
        """The fields that are not None."""
        return {name: value for name in NAMES if (value := getattr(self, name)) is not None}

    @classmethod
    def of(cls, body: Json) -> Self:
        """The entry in a record's body, which may hold more (seq, time)."""
        return cls(**{name: body[name] for name in NAMES if name in body})


NAMES = tuple(field.name for field in fields(Entry))
