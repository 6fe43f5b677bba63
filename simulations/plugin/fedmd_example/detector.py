"""A detector for mode=stream."""

from fedmd.defense.samples.detectors.base import Detector


class Margin(Detector):
    """1 - (p_1 - p_2): how close the current model's second guess is to its first."""

    label = "Closeness of the first two guesses"

    def __call__(self, outputs):
        """Scores [N] in [0, 1]."""
        first, second = outputs.current.float().softmax(dim=1).topk(2).values.unbind(dim=1)
        return 1 - (first - second)
