"""The server's model in mode=update: aggregated somewhere else, loaded here, tested and watched."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fedmd.config import RunConfig
from fedmd.data.split import Split
from fedmd.models import model_for
from fedmd.training.burn_in import BurnIn
from fedmd.training.device import Numerics
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet


class GlobalModel:
    """One model from the end of burn-in on, and the server's own data. `trusted` are images [n, C, H, W] and labels."""

    def __init__(self, config: RunConfig, images: ImageSet, split: Split, burn_in: BurnIn, numerics: Numerics) -> None:
        self._numerics = numerics
        self.model: nn.Module = model_for(config.model, images, config.seed)
        self.model.load_state_dict(burn_in.final)
        numerics.place(self.model)
        trusted_x, self._trusted_y = images.take(split.trusted).tensors(numerics.device)
        self._trusted_x = numerics.images(trusted_x)
        self._test_x, self._test_y = images.take(split.test).tensors(numerics.device)

    @property
    def trusted(self) -> tuple[Tensor, Tensor]:
        """The server's own clean samples."""
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
