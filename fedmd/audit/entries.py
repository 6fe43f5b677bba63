"""The lines of the audit trail, and how a round becomes such lines: the same for samples and for model updates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal, Self

from fedmd.types import Action, Json, RefusedNode, Rejection

Kind = Literal["run", "message", "verdict", "quarantine", "model", "replay", "rewind", "rotation", "signature"]


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
    model           undone: what was learned in `round` was not usable, and the model is as it was before
    replay          accepted | corrected | rejected | learned: a kept batch, judged again later
    rewind          rewound: the records after `position` and before this one are void
    rotation        continued: the first record of the next file
    signature       signed: `content` is the Ed25519 signature of the place just before it

    `node` is the fingerprint of the key of the node that sent the message; `content` the SHA-256 of what it sent;
    `model_version` the number of online steps, or of aggregations, behind the model that judged. `discrepancy` in nats;
    `score` is that of a detector other than the discrepancy, where another one decided, in its own unit, and
    `threshold` is of the one that decided; of a message the mean over its samples. `evidence` (nats) is what there was
    against the client after the message.
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
        """The entry in a record's body, which may hold more (seq, time). Raises ValueError for another type."""
        for name in body.keys() & _TYPES.keys():
            if not isinstance(body[name], _TYPES[name]):
                raise ValueError(f"{name} is {str(body[name])[:40]!r}")
        return cls(**{name: body[name] for name in NAMES if name in body})


NAMES = tuple(field.name for field in fields(Entry))
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("kind", "action", "node", "reason", "content", "previous"), str),
    **dict.fromkeys(("round", "client", "index", "model_version", "position"), int),
    **dict.fromkeys(("discrepancy", "score", "threshold", "evidence"), (int, float, type(None))),
}


@dataclass(frozen=True)
class Score:
    """What was held against which threshold; None where nothing was measured, or is no finite number.

    `discrepancy` in nats; `score` is that of a detector other than the discrepancy, where another one decided.
    """

    discrepancy: float | None = None
    score: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class JudgedMessage:
    """One client's message as the defence judged it: an action and a score for each sample (or for its one update).

    `score` is the message's as a whole, `reason` what is to be said about it; `content` the SHA-256 of what was sent.
    """

    client: int
    content: str | None
    actions: Sequence[Action]
    scores: Sequence[Score]
    score: Score
    reason: str | None = None


@dataclass(frozen=True)
class RoundRecord:
    """A round as it is known when the model is about to move from `model_version` on.

    `unjudged` are (client, content) of the messages of clients that were in quarantine already; `quarantined` maps
    them, and those who were put there in this round, to the reason. `evidence` is in nats by client, `nodes` the
    fingerprint of the key of each client's node, where nodes have keys. A message is an update, or a batch of samples.
    """

    unit: Literal["sample", "update"]
    round: int
    model_version: int
    judged: Sequence[JudgedMessage]
    unjudged: Sequence[tuple[int, str | None]]
    rejections: Sequence[Rejection]
    quarantined: Mapping[int, str]
    evidence: Mapping[int, float]
    nodes: Mapping[int, str]

    @cached_property
    def notes(self) -> Mapping[int, Sequence[str]]:
        """The reasons of the rejections, by client."""
        found: dict[int, list[str]] = {}
        for item in self.rejections:
            found.setdefault(item.client, []).append(item.reason)
        return found


def round_entries(record: RoundRecord) -> list[Entry]:
    """Every message, by client, each followed by the verdicts on what was in it.

    A rejection of a client whose message is there is a note on that message, and no other message.
    """
    present = {*(message.client for message in record.judged), *(client for client, _ in record.unjudged)}
    entries = [(message.client, _judged(record, message)) for message in record.judged]
    entries += [
        (client, [_message(record, client, content, evidence=record.evidence.get(client))])
        for client, content in record.unjudged
    ]
    entries += [
        (item.client, [_message(record, item.client, item.content)])
        for item in record.rejections
        if item.client not in present
    ]
    return [entry for _, mine in sorted(entries, key=lambda pair: pair[0]) for entry in mine]


def refused_node_entries(round: int, nodes: Iterable[RefusedNode]) -> list[Entry]:
    """The entries on nodes that were not let in since the round before."""
    return [Entry("message", "rejected", round=round, node=each.key, reason=each.reason) for each in nodes]


def _judged(record: RoundRecord, message: JudgedMessage) -> list[Entry]:
    """The message's entry, and those on what was in it; an update's has the message's reason too."""
    refused = bool(message.actions) and all(action == Action.REJECTED for action in message.actions)
    whole = _message(
        record,
        message.client,
        message.content,
        action="rejected" if refused else "accepted",
        score=message.score,
        evidence=record.evidence.get(message.client),
        reason=message.reason,
    )
    verdicts = [
        replace(
            whole,
            kind="verdict",
            action="quarantined" if message.client in record.quarantined else Action(action).name.lower(),
            index=index,
            discrepancy=score.discrepancy,
            score=score.score,
            threshold=score.threshold,
            evidence=None,
            reason=whole.reason if record.unit == "update" else None,
        )
        for index, (action, score) in enumerate(zip(message.actions, message.scores, strict=True))
    ]
    return [whole, *verdicts]


def _message(
    record: RoundRecord,
    client: int,
    content: str | None,
    *,
    action: str = "rejected",
    score: Score | None = None,
    evidence: float | None = None,
    reason: str | None = None,
) -> Entry:
    """The entry on a message as a whole; what is quarantined is that, whatever else was made of it."""
    if client in record.quarantined:
        action, reason = "quarantined", record.quarantined[client]
    return Entry(
        "message",
        action,
        round=record.round,
        client=client,
        node=record.nodes.get(client),
        discrepancy=score.discrepancy if score else None,
        score=score.score if score else None,
        threshold=score.threshold if score else None,
        evidence=evidence,
        reason="; ".join(filter(None, [reason, *record.notes.get(client, ())])) or None,
        model_version=record.model_version,
        content=content,
    )
