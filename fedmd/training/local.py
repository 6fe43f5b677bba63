"""A client's training in one round of mode=update: epochs of SGD over its own data, from the server's model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from fedmd.config import LocalConfig, RunConfig
from fedmd.seeding import generator, seed_for
from fedmd.training.device import seed_torch
from fedmd.training.sgd import Sgd
from fedmd.types import ImageSet


def train_locally(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    config: LocalConfig,
    randomness: torch.Generator,
    *,
    proximal_mu: float = 0.0,
) -> None:
    """Train `model` in place, from where it stands, on `x` [n, C, H, W] and `y` [n]; it is left in train mode.

    Plain SGD with a fresh momentum, each epoch in a new order drawn from `randomness` (a CPU generator), on
    CE(f_θ(x), y) + (mu / 2) ‖θ - θ_t‖², θ_t the parameters it starts from: FedAvg's client (McMahan et al., AISTATS
    2017) for mu = 0, FedProx's (Li et al., MLSys 2020) otherwise. A batch that is left with one sample keeps the
    batch-norm statistics, for one sample may have no variance.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in parameters] if proximal_mu else []
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    optimizer = Sgd(parameters, lr=config.lr, momentum=config.momentum)
    model.train()
    for _ in range(config.epochs):
        order = torch.randperm(len(x), generator=randomness).to(x.device)
        for chosen in torch.split(order, config.batch_size):
            for norm in norms:
                norm.train(len(chosen) > 1)
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(x[chosen]), y[chosen]))
            if proximal_mu:
                _pull_back(parameters, start, proximal_mu)
            optimizer.step()
    model.train()


@torch.no_grad()
def _pull_back(parameters: list[nn.Parameter], start: list[Tensor], mu: float) -> None:
    """Add the proximal term's gradient, mu (θ - θ_t)."""
    for parameter, origin in zip(parameters, start, strict=True):
        if parameter.grad is not None:
            parameter.grad.add_(parameter - origin, alpha=mu)


def train_client(
    model: nn.Module,
    start: Mapping[str, Tensor],
    own: ImageSet,
    config: RunConfig,
    *,
    client: int,
    round: int,
    proximal_mu: float = 0.0,
) -> None:
    """Make `model` what `client` learns in `round`: load `start` (the server's model) into it and train on `own`.

    A function of its arguments, whatever `model` held before; so whoever has the data can repeat it.
    """
    model.load_state_dict(start)
    device = next(model.parameters()).device
    seed_torch(seed_for(config.seed, "local", client, round), device)  # for models with dropout
    x, y = own.tensors(device)
    order = generator(config.seed, "local", client, round)
    train_locally(model, x, y, config.local, order, proximal_mu=proximal_mu)


def take_state(model: nn.Module) -> dict[str, Tensor]:
    """What of `model` is averaged (see `floating`); the tensors are the caller's alone.

    The model gets others in their place, of no particular values, and is to be loaded before it is used again.
    """
    taken = {}
    for name, tensor in floating(model.state_dict(keep_vars=True)).items():
        taken[name], tensor.data = tensor.data, torch.empty_like(tensor.data)
    return taken


def floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that are averaged: parameters and floating-point buffers, not a batch norm's counter of batches."""
    return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
