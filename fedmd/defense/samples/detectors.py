"""How suspicious a sample looks: the paper's discrepancy, and other scores of the same two models' answers.

A detector is a pure function of `Answers`, so that one forward pass of each model serves all of them; larger means
more suspicious. Those of `fedmd.defense.samples.baselines` compare with the server's trusted set.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.config import ConfigError
from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.defense.samples.baselines import kernel_density, lid, mahalanobis, pixel_distance
from fedmd.defense.samples.outputs import Answers, has_features

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


def confidence(answers: Answers) -> Tensor:
    """1 - max_k p_current,k(x) [N]: what the current model is unsure of; ignores the labels.

    The baseline of Hendrycks & Gimpel, ICLR 2017.
    """
    return 1 - answers.current.float().softmax(dim=1).amax(dim=1)


FEATURE_DETECTORS: dict[str, Detector] = {"kernel_density": kernel_density, "lid": lid, "mahalanobis": mahalanobis}

DETECTORS: dict[str, Detector] = {
    "discrepancy": discrepancy,
    "historical_loss": historical_loss,
    "current_loss": current_loss,
    "confidence": confidence,
    "pixel_distance": pixel_distance,
    **FEATURE_DETECTORS,
}


def check_detector(name: str, model: nn.Module) -> None:
    """Raise `ConfigError` where the detector looks at penultimate features and `model` has none."""
    if name in FEATURE_DETECTORS and not has_features(model):
        others = ", ".join(other for other in DETECTORS if other not in FEATURE_DETECTORS)
        raise ConfigError(
            f"defense.detector: {name} needs the input of a torch.nn.Linear and the model has none; allowed: {others}."
        )


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


def alarms(suspicious: Tensor, stopping: Stopping, clients: Tensor | None = None) -> tuple[int, int]:
    """How many judgements were alarms, and how many there were: of samples, of clients' messages, or of the batch."""
    if stopping == "per_sample" or len(suspicious) == 0:
        return int(suspicious.sum()), len(suspicious)
    if stopping == "batch_mean":
        return int(suspicious[0]), 1
    if clients is None:
        raise ValueError("clients must name each sample's client for stopping='per_client'")
    senders, accused = clients.unique(), clients[suspicious].unique()  # type: ignore[no-untyped-call]
    return len(accused), len(senders)


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
