"""What is judged as a whole: a sample, a client's message, or the round's batch; its score is the mean of its samples'.

"per_client" is the memoryless form of evidence against a client, "batch_mean" what [MD23]'s published code does.
"""

from typing import Literal

import torch
from torch import Tensor

Stopping = Literal["per_sample", "per_client", "batch_mean"]


def pooled(scores: Tensor, stopping: Stopping, clients: Tensor | None = None) -> Tensor:
    """What is held against the threshold for each sample: its own score [N], or a mean it is part of.

    per_client averages over the samples of one client (ids `clients` [N]), batch_mean over all N.
    """
    if stopping == "per_sample" or len(scores) == 0:
        return scores
    if stopping == "batch_mean":
        return scores.mean().expand_as(scores)
    means, member = client_means(scores, _given(clients))
    return means[member]


def client_means(scores: Tensor, clients: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of each client's `scores` [N], by ascending id [K], and whose place in that each of `clients` [N] has.

    A score that is no number, or infinite, is its own client's alone. Added up on the CPU in double precision, which
    repeats bit for bit; a GPU adds in no fixed order.
    """
    _, member = torch.unique(clients, return_inverse=True)  # type: ignore[no-untyped-call]
    place = member.cpu()
    means = torch.bincount(place, weights=scores.cpu().double()) / torch.bincount(place)
    return means.to(scores), member


def count_alarms(suspicious: Tensor, stopping: Stopping, clients: Tensor | None = None) -> tuple[int, int]:
    """How many judgements were alarms, and how many there were: of samples, of clients' messages, or of the batch."""
    if stopping == "per_sample" or len(suspicious) == 0:
        return int(suspicious.sum()), len(suspicious)
    if stopping == "batch_mean":
        return int(suspicious[0]), 1
    clients = _given(clients)
    senders, accused = clients.unique(), clients[suspicious].unique()  # type: ignore[no-untyped-call]
    return len(accused), len(senders)


def pooled_trusted(scores: Tensor, stopping: Stopping, clients: Tensor | None, n: int, draws: int = 500) -> Tensor:
    """What honest traffic would score: `scores` [m] of the trusted set, or means of as many of them as are pooled.

    `n` is the size of the batch to be judged. Means of draws from one small set overlap, so the finite-sample promise
    of the quantile holds per sample only; for means it is an estimate. The draws (with replacement) are the same at
    every call, so that the threshold moves with the models and not by chance.
    """
    if stopping == "per_sample":
        return scores
    groups = 1 if stopping == "batch_mean" or clients is None else len(torch.unique(clients))  # type: ignore[no-untyped-call]
    index = torch.randint(len(scores), (draws, max(1, n // groups)), generator=torch.Generator().manual_seed(0))
    return scores[index.to(scores.device)].mean(dim=1)


def _given(clients: Tensor | None) -> Tensor:
    if clients is None:
        raise ValueError("clients must name each sample's client for stopping='per_client'")
    return clients
