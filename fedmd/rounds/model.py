"""The model a server keeps, whichever way it learns, beside the clean data that only the server has."""

from torch import Tensor, nn

from fedmd.attacks.backdoor import triggered_test
from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.models import model_for
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Numerics
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet


class ServedModel:
    """One model from the end of burn-in on, the server's `trusted_set`, and the test set."""

    def __init__(self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, numerics: Numerics) -> None:
        self._numerics = numerics
        self.model: nn.Module = model_for(config.model, images, config.seed)
        self.model.load_state_dict(burn_in.final)
        numerics.place(self.model)
        self.trusted_set = images.take(split.trusted)
        x, y = self.trusted_set.tensors(numerics.device)
        self.trusted: tuple[Tensor, Tensor] = (numerics.images(x), y)  # [n, C, H, W] and [n]
        test = images.take(split.test)
        self._test = test.tensors(numerics.device)
        stamped = triggered_test(config, test)
        self._triggered = None if stamped is None else stamped.tensors(numerics.device)

    def accuracy(self) -> float:
        """Share of the test set the current model gets right."""
        with self._numerics.autocast():
            return accuracy(self.model, *self._test)

    def trusted_accuracy(self) -> float:
        """Share of the server's trusted set the current model gets right."""
        with self._numerics.autocast():
            return accuracy(self.model, *self.trusted)

    def attack_success(self) -> float | None:
        """Share of the stamped test images that the current model takes for the backdoor's target; None without one."""
        if self._triggered is None:
            return None
        with self._numerics.autocast():
            return accuracy(self.model, *self._triggered)
