"""A round of the update mode as audit entries: one a message, and one for the verdict on the update in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fedmd.audit.entry import Entry
from fedmd.audit.refusal import refusals
from fedmd.types import Action, Rejection


@dataclass(frozen=True)
class ToldUpdate:
    """One client's update: what it came as, and what the defence made of it; unmeasured where nobody screens.

    `discrepancy` (nats) is the one that decided, from whichever historical model, `threshold` the limit it came
    closest to or went beyond; where another score decided, `score` is that and `threshold` its limit.
    """

    client: int
    content: str | None
    action: Action = Action.ACCEPTED
    discrepancy: float | None = None
    score: float | None = None
    threshold: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class UpdateRound:
    """What is known when the strategy is about to aggregate, after `model_version` aggregations.

    `aside` maps quarantined clients to the reason: those among the `judged`, and those whose `unjudged` updates, given
    as (client, content), went straight to the shelf.
    """

    round: int
    model_version: int
    judged: Sequence[ToldUpdate]
    unjudged: Sequence[tuple[int, str | None]]
    rejections: Sequence[Rejection]
    aside: Mapping[int, str]
    evidence: Mapping[int, float]
    nodes: Mapping[int, str]


def update_entries(told: UpdateRound) -> list[Entry]:
    """Every message, by client, followed by the verdict on its update.

    A rejection of a client whose update is there is a note on that message, and no other message.
    """
    heard = {*(update.client for update in told.judged), *(client for client, _ in told.unjudged)}
    refused = [item for item in told.rejections if item.client not in heard]
    entries = [(update.client, _judged(told, update)) for update in told.judged]
    entries += [(client, [_aside(told, client, content)]) for client, content in told.unjudged]
    entries += refusals(told.round, told.model_version, refused, told.nodes)
    return [entry for _, mine in sorted(entries, key=lambda pair: pair[0]) for entry in mine]


def _judged(told: UpdateRound, update: ToldUpdate) -> list[Entry]:
    reason = told.aside.get(update.client)
    refused = update.action == Action.REJECTED
    message = "quarantined" if reason else "rejected" if refused else "accepted"
    common = Entry(
        "message",
        message,
        round=told.round,
        client=update.client,
        node=told.nodes.get(update.client),
        discrepancy=update.discrepancy,
        score=update.score,
        threshold=update.threshold,
        evidence=told.evidence.get(update.client),
        reason=_with_notes(told, update.client, reason or update.reason),
        model_version=told.model_version,
        content=update.content,
    )
    verdict = "quarantined" if reason else update.action.name.lower()
    return [common, replace(common, kind="verdict", action=verdict, index=0, evidence=None)]


def _aside(told: UpdateRound, client: int, content: str | None) -> Entry:
    return Entry(
        "message",
        "quarantined",
        round=told.round,
        client=client,
        node=told.nodes.get(client),
        evidence=told.evidence.get(client),
        reason=_with_notes(told, client, told.aside[client]),
        model_version=told.model_version,
        content=content,
    )


def _with_notes(told: UpdateRound, client: int, reason: str | None) -> str | None:
    notes = [item.reason for item in told.rejections if item.client == client]
    return "; ".join(filter(None, [reason, *notes])) or None
