"""What every detector is."""

from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from fedmd import registry
from fedmd.config import ConfigError, Mode
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.models.features import has_features

Score = Callable[[ModelOutputs], Tensor]  # what a `Detector` is when it is called; any such function will do


class Detector(registry.Plugin):
    """How suspicious N samples look, larger meaning more: a function of `ModelOutputs`.

    So one forward pass of each model serves all of them. `label` and `unit` are the score's, for reports;
    `needs_features`: it looks at the penultimate features of the current model. `is_baseline`: reports show what it
    makes of the samples whichever detector the defence goes by.
    """

    modes: ClassVar[tuple[Mode, ...]] = ("stream",)
    unit: ClassVar[str] = ""
    needs_features: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __call__(self, outputs: ModelOutputs) -> Tensor:
        """Scores [N], float, where the labels are; NaN where there is nothing to look at. N may be 0."""
        raise NotImplementedError

    def check_model(self, model: nn.Module) -> None:
        """Raise `ConfigError` where it needs features and `model` has none."""
        if self.needs_features and not has_features(model):
            others = [each.name for each in registry.DETECTORS.own() if not getattr(each, "needs_features", False)]
            raise ConfigError(
                f"defense.detector: {self.name} needs the input of a torch.nn.Linear and the model has none; "
                f"allowed: {', '.join(others)}."
            )
