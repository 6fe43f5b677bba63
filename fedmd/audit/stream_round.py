"""A round of the streaming mode as audit entries: one a message, one a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmd.audit.entry import Entry
from fedmd.audit.refusal import refusals
from fedmd.types import Action, Rejection, StreamBatch, Verdicts


@dataclass(frozen=True)
class StreamRound:
    """What is known when the model is about to move from `model_version` on.

    `batches` are in the order of the `verdicts` [N] on their samples; `aside` maps quarantined clients to the reason,
    those judged in this round and those whose `unjudged` batches went straight to the shelf.
    """

    round: int
    model_version: int
    batches: Sequence[StreamBatch]
    verdicts: Verdicts
    unjudged: Sequence[StreamBatch]
    rejections: Sequence[Rejection]
    aside: Mapping[int, str]
    evidence: Mapping[int, float]
    nodes: Mapping[int, str]


def stream_entries(told: StreamRound) -> list[Entry]:
    """Every message, by client, followed by the verdicts on its samples.

    A rejection of a client whose batch is there is a note on that message, and no other message.
    """
    heard = {batch.client for batch in (*told.batches, *told.unjudged)}
    entries: list[tuple[int, list[Entry]]] = []
    start = 0
    for batch in told.batches:
        rows = slice(start, start := start + len(batch))
        entries.append((batch.client, [_message(told, batch, rows), *_samples(told, batch, rows)]))
    entries += [(batch.client, [_message(told, batch, slice(0))]) for batch in told.unjudged]
    refused = [item for item in told.rejections if item.client not in heard]
    entries += refusals(told.round, told.model_version, refused, told.nodes)
    return [entry for _, mine in sorted(entries, key=lambda pair: pair[0]) for entry in mine]


def _message(told: StreamRound, batch: StreamBatch, rows: slice) -> Entry:
    verdicts, aside = told.verdicts, batch.client in told.aside
    refused = bool((verdicts.actions[rows] == Action.REJECTED).all()) and rows.stop > 0
    scores, discrepancies = _measured(verdicts)
    reasons = [told.aside.get(batch.client, "every sample was rejected" if refused else "")]
    reasons += [item.reason for item in told.rejections if item.client == batch.client]
    return Entry(
        "message",
        "quarantined" if aside else "rejected" if refused else "accepted",
        round=told.round,
        client=batch.client,
        node=told.nodes.get(batch.client),
        discrepancy=_mean(discrepancies[rows]),
        score=None if scores is None else _mean(scores[rows]),
        threshold=verdicts.threshold if rows.stop else None,
        evidence=told.evidence.get(batch.client),
        reason="; ".join(filter(None, reasons)) or None,
        model_version=told.model_version,
        content=batch.content,
    )


def _samples(told: StreamRound, batch: StreamBatch, rows: slice) -> list[Entry]:
    verdicts, aside = told.verdicts, batch.client in told.aside
    scores, discrepancies = _measured(verdicts)
    return [
        Entry(
            "verdict",
            "quarantined" if aside else Action(int(verdicts.actions[row])).name.lower(),
            round=told.round,
            client=batch.client,
            index=index,
            node=told.nodes.get(batch.client),
            discrepancy=_number(discrepancies[row]),
            score=None if scores is None else _number(scores[row]),
            threshold=verdicts.threshold,
            model_version=told.model_version,
            content=batch.content,
        )
        for index, row in enumerate(range(rows.start, rows.stop))
    ]


def _measured(verdicts: Verdicts) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """The other detector's scores, if one is in use, and the discrepancies."""
    return (None, verdicts.before) if verdicts.discrepancy is None else (verdicts.before, verdicts.discrepancy)


def _mean(values: NDArray[np.float64]) -> float | None:
    return _number(values.mean()) if len(values) else None


def _number(value: np.float64) -> float | None:
    return float(value) if np.isfinite(value) else None
