"""How suspicious a sample looks: the paper's discrepancy, and other scores of the same two models' answers.

A detector is a pure function of logits, so that one forward pass of each model serves all of them; larger means more
suspicious.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Callable
from dataclasses import dataclass

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


@torch.no_grad()
def ask(historical: nn.Module, current: nn.Module, x: Tensor, y: Tensor) -> Answers:
    """Both models' answers to `x` [N, C, H, W] in eval mode; their train/eval flags come back."""
    with evaluating(historical, current):
        return Answers(historical(x), current(x), y)


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


def pooled(scores: Tensor, groups: Tensor) -> Tensor:
    """Each sample's score [N] replaced by the mean over its group; `groups` [N] are client ids.

    The memoryless form of per-client evidence: a message is judged as a whole.
    """
    _, member = groups.unique(return_inverse=True)
    size = torch.bincount(member).to(scores.dtype)
    return (torch.zeros_like(size).index_add_(0, member, scores) / size)[member]


def pooled_reference(scores: Tensor, size: int, draws: int = 500) -> Tensor:
    """Means [draws] of `size` scores drawn with replacement from `scores` [n]: what honest messages would score.

    The draws are the same at every call, so that the threshold moves with the models and not by chance.
    """
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(scores), (draws, size), generator=generator)
    return scores[index.to(scores.device)].mean(dim=1)
