"""The paper's discrepancy, and other scores of the same two models' logits.

[MD23] Zhu et al., Exploring Model Dynamics for Accumulative Poisoning Discovery, ICML 2023.
"""

from torch import Tensor
from torch.nn import functional as F

from fedmd.defense.discrepancy import discrepancy_from_logits
from fedmd.defense.samples.detectors.base import Detector
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.registry import register_detector


@register_detector("discrepancy")
class Discrepancy(Detector):
    """Memorization Discrepancy, eq (5) of Zhu et al., ICML 2023: KL(historical || current); ignores the labels."""

    label = "Memorization discrepancy"
    unit = "nats"
    is_baseline = False  # it stands in every report by itself

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """Eq (5) [N]."""
        return discrepancy_from_logits(outputs.historical, outputs.current)


DISCREPANCY = Discrepancy(Discrepancy.Params())


@register_detector("historical_loss")
class HistoricalLoss(Detector):
    """-log p_historical(y | x): what the label costs a model the attackers have not steered yet.

    An extension of ours: (5) compares the models' outputs and never looks at the label; this looks at the label and
    at the historical model only.
    """

    label = "Historical loss"
    unit = "nats"

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """The cross-entropy [N]."""
        return F.cross_entropy(outputs.historical.float(), outputs.labels, reduction="none")


@register_detector("current_loss")
class CurrentLoss(Detector):
    """-log p_current(y | x): the loss, everybody's first idea and therefore the baseline."""

    label = "Current loss"
    unit = "nats"

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """The cross-entropy [N]."""
        return F.cross_entropy(outputs.current.float(), outputs.labels, reduction="none")


@register_detector("confidence")
class Confidence(Detector):
    """1 - max_k p_current,k(x): what the current model is unsure of; ignores the labels.

    The baseline of Hendrycks & Gimpel, ICLR 2017.
    """

    label = "Lack of confidence"

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """One minus the largest probability [N]."""
        return 1 - outputs.current.float().softmax(dim=1).amax(dim=1)
