"""The server's model in mode=update: aggregated somewhere else, loaded here, tested and watched."""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedmd.rounds.model import ServedModel


class GlobalModel(ServedModel):
    """A served model that others move."""

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into the model, number format and device being the model's; what it does not name stays."""
        own = self.model.state_dict()
        for name, tensor in state.items():
            own[name].copy_(tensor)
