"""The model a server keeps, whichever way it learns, beside the clean data that only the server has."""

from torch import Tensor, nn

from fedmd.attacks.backdoor import triggered_test
from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.models import model_for
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Placement
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet


class ServedModel:
    """One model from the end of burn-in on, the server's `trusted_set`, and the test set."""

    def __init__(
        self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, placement: Placement
    ) -> None:
        self._placement = placement
        self.model: nn.Module = model_for(config.model, images, config.seed)
        self.model.load_state_dict(burn_in.final)
        placement.place(self.model)
        self.trusted_set = images.take(split.trusted)
        x, y = self.trusted_set.tensors(placement.device)
        self.trusted: tuple[Tensor, Tensor] = (placement.images(x), y)  # [n, C, H, W] and [n]
        test = images.take(split.test)
        self._test = test.tensors(placement.device)
        stamped = triggered_test(config, test)
        self._triggered = None if stamped is None else stamped.tensors(placement.device)

    def accuracy(self) -> float:
        """Share of the test set the current model gets right."""
        with self._placement.autocast():
            return accuracy(self.model, *self._test)

    def trusted_accuracy(self) -> float:
        """Share of the server's trusted set the current model gets right."""
        with self._placement.autocast():
            return accuracy(self.model, *self.trusted)

    def attack_success(self) -> float | None:
        """Share of the stamped test images that the current model takes for the backdoor's target; None without one."""
        if self._triggered is None:
            return None
        with self._placement.autocast():
            return accuracy(self.model, *self._triggered)
