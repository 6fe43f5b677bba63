"""The model a server keeps, whichever way it learns, beside the clean data that only the server has."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.attacks.coalition import success_test
from fedmd.models import model_for
from fedmd.training.evaluate import accuracy, evaluating
from fedmd.training.setup import Setup

_ASKED = 32  # trusted images: a net that overflows does so on all of them


class ServerModel:
    """One net from the end of burn-in on, the server's `trusted_set`, and the test set."""

    def __init__(self, setup: Setup) -> None:
        data, placement = setup.data, setup.placement
        self.placement = placement
        self.net: nn.Module = model_for(data.config.model, data.images, data.config.seed)
        self.net.load_state_dict(setup.trained.final)
        placement.place(self.net)
        self.trusted_set = data.images.take(data.split.trusted)
        x, y = self.trusted_set.tensors(placement.device)
        self.trusted: tuple[Tensor, Tensor] = (placement.images(x), y)  # [n, C, H, W] and [n]
        test = data.images.take(data.split.test)
        self._test = test.tensors(placement.device)
        stamped = success_test(data.config, test)
        self._triggered = None if stamped is None else stamped.tensors(placement.device)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into the net, number format and device being the net's; what it does not name stays."""
        own = self.net.state_dict()
        for name, tensor in state.items():
            own[name].copy_(tensor)

    @torch.no_grad()
    def answers_finitely(self) -> bool:
        """Whether the current net's loss on a few trusted images is a finite number: whoever trains begins with one."""
        x, y = (part[:_ASKED] for part in self.trusted)
        with self.placement.autocast(), evaluating(self.net):
            return bool(torch.isfinite(cross_entropy(self.net(x), y)))

    def accuracy(self) -> float:
        """Share of the test set that the current net gets right."""
        with self.placement.autocast():
            return accuracy(self.net, *self._test)

    def trusted_accuracy(self) -> float:
        """Share of the trusted set that the current net gets right."""
        with self.placement.autocast():
            return accuracy(self.net, *self.trusted)

    def attack_success(self) -> float | None:
        """Share of the stamped test images that the current net takes for the backdoor's target; None without one."""
        if self._triggered is None:
            return None
        with self.placement.autocast():
            return accuracy(self.net, *self._triggered)
