"""How suspicious a sample looks: the paper's discrepancy, and other scores of the same two models' outputs.

A detector is a pure function of `ModelOutputs`, so that one forward pass of each model serves all of them; larger means
more suspicious. Those of `baselines` compare with the server's trusted set.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from fedmd.config import ConfigError
from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.defense.samples.baselines import kernel_density, lid, mahalanobis, pixel_distance
from fedmd.defense.samples.outputs import ModelOutputs, has_features

Detector = Callable[[ModelOutputs], Tensor]


def discrepancy(outputs: ModelOutputs) -> Tensor:
    """Memorization Discrepancy, eq (5) of [MD23]: KL(historical || current) [N], in nats; ignores the labels."""
    return discrepancy_from_logits(outputs.historical, outputs.current)


def historical_loss(outputs: ModelOutputs) -> Tensor:
    """-log p_historical(y | x) [N], in nats: what the label costs a model the attackers have not steered yet.

    An extension of ours: (5) compares the models' outputs and never looks at the label; this looks at the label and
    at the historical model only.
    """
    return F.cross_entropy(outputs.historical.float(), outputs.labels, reduction="none")


def current_loss(outputs: ModelOutputs) -> Tensor:
    """-log p_current(y | x) [N], in nats: the loss, everybody's first idea and therefore the baseline."""
    return F.cross_entropy(outputs.current.float(), outputs.labels, reduction="none")


def confidence(outputs: ModelOutputs) -> Tensor:
    """1 - max_k p_current,k(x) [N]: what the current model is unsure of; ignores the labels.

    The baseline of Hendrycks & Gimpel, ICLR 2017.
    """
    return 1 - outputs.current.float().softmax(dim=1).amax(dim=1)


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
