"""The server's model in mode=update: aggregated somewhere else, loaded here, tested and watched."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedmd.attacks.backdoor import triggered_test
from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.models import model_for
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Numerics
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet


class GlobalModel:
    """One model from the end of burn-in on, and the server's own clean data: `trusted_set`, as tensors `trusted`."""

    def __init__(self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, numerics: Numerics) -> None:
        self._numerics = numerics
        self.model: nn.Module = model_for(config.model, images, config.seed)
        self.model.load_state_dict(burn_in.final)
        numerics.place(self.model)
        self.trusted_set = images.take(split.trusted)
        trusted_x, self._trusted_y = self.trusted_set.tensors(numerics.device)
        self._trusted_x = numerics.images(trusted_x)
        test = images.take(split.test)
        self._test_x, self._test_y = test.tensors(numerics.device)
        stamped = triggered_test(config, test)
        self._triggered = None if stamped is None else stamped.tensors(numerics.device)

    @property
    def trusted(self) -> tuple[Tensor, Tensor]:
        """Images [n, C, H, W] and labels [n]."""
        return self._trusted_x, self._trusted_y

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into the model, number format and device being the model's; what it does not name stays."""
        own = self.model.state_dict()
        for name, tensor in state.items():
            own[name].copy_(tensor)

    def accuracy(self) -> float:
        """Share of the test set the current model gets right."""
        with self._numerics.autocast():
            return accuracy(self.model, self._test_x, self._test_y)

    def trusted_accuracy(self) -> float:
        """Share of the server's trusted set the current model gets right."""
        with self._numerics.autocast():
            return accuracy(self.model, self._trusted_x, self._trusted_y)

    def attack_success(self) -> float | None:
        """Share of the stamped test images that the current model takes for the backdoor's target; None without one."""
        if self._triggered is None:
            return None
        with self._numerics.autocast():
            return accuracy(self.model, *self._triggered)
