"""How suspicious a sample looks: the paper's discrepancy, and other scores of the same two models' answers.

A detector is a pure function of logits, so that one forward pass of each model serves all of them; larger means more
suspicious.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.training.mode import evaluating


@dataclass(frozen=True)
class Answers:
    """What the models say to N samples: `historical` and `current` logits [N, K], and the claimed labels [N]."""

    historical: Tensor
    current: Tensor
    labels: Tensor


Detector = Callable[[Answers], Tensor]
Stopping = Literal["per_sample", "per_client", "batch_mean"]


def discrepancy(answers: Answers) -> Tensor:
    """Memorization Discrepancy, eq (5) of [MD23]: KL(historical || current) [N], in nats; ignores the labels."""
    return discrepancy_from_logits(answers.historical, answers.current)


def historical_loss(answers: Answers) -> Tensor:
    """-log p_historical(y | x) [N], in nats: what the label costs a model the attackers have not steered yet.

    An extension of ours: (5) compares the models' answers and never looks at the label; this looks at the label and
    at the historical model only.
    """
    return F.cross_entropy(answers.historical.float(), answers.labels, reduction="none")


def current_loss(answers: Answers) -> Tensor:
    """-log p_current(y | x) [N], in nats: the loss, everybody's first idea and therefore the baseline."""
    return F.cross_entropy(answers.current.float(), answers.labels, reduction="none")


DETECTORS: dict[str, Detector] = {
    "discrepancy": discrepancy,
    "historical_loss": historical_loss,
    "current_loss": current_loss,
}


@torch.no_grad()
def score(detector: Detector, historical: nn.Module, current: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """`detector` on samples `x` [N, C, H, W] with labels `y` [N], models in eval mode; N = 0 runs neither."""
    return detector(ask(historical, current, x, y))


@torch.no_grad()
def ask(historical: nn.Module, current: nn.Module, x: Tensor, y: Tensor) -> Answers:
    """Both models' answers to `x` [N, C, H, W] in eval mode; their train/eval flags come back."""
    if len(x) == 0:
        nothing = torch.zeros(0, 1, device=x.device)
        return Answers(nothing, nothing, y)
    with evaluating(historical, current):
        return Answers(historical(x), current(x), y)


def pooled(scores: Tensor, stopping: Stopping, clients: Tensor | None = None) -> Tensor:
    """What is held against the threshold for each sample: its own score [N], or a mean it is part of.

    per_client averages over the samples of one client (ids `clients` [N]): a message is judged as a whole, the
    memoryless form of per-client evidence. batch_mean averages over all N.
    """
    if stopping == "per_sample" or len(scores) == 0:
        return scores
    if stopping == "batch_mean":
        return scores.mean().expand_as(scores)
    if clients is None:
        raise ValueError("clients must name each sample's client for stopping='per_client'")
    _, member = torch.unique(clients, return_inverse=True)  # type: ignore[no-untyped-call]
    belongs = F.one_hot(member).to(scores.dtype)  # a dense sum repeats bit for bit on a GPU, index_add_ does not
    return ((scores[:, None] * belongs).sum(dim=0) / belongs.sum(dim=0))[member]


def pooled_reference(scores: Tensor, stopping: Stopping, clients: Tensor | None, n: int, draws: int = 500) -> Tensor:
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
