"""What a client on a machine of its own learns in a round of mode=update: from its samples, within its limits."""

import os
import time
from collections.abc import Mapping

import torch
from flwr.app import ArrayRecord
from torch import Tensor, nn

from fedmd.config import ModelConfig, NodeConfig, RunConfig
from fedmd.data.node_stream import read_samples
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.model_exchange import fetch_state
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.models import model_for
from fedmd.registry import CUSTOM, resolving
from fedmd.training.device import Placement, flushing_denormals
from fedmd.training.local import floating, train_client
from fedmd.types import ImageSet


@flushing_denormals()
def own_update(node: NodeConfig, request: Request, config: RunConfig, client: int) -> ClientUpdate:
    """The update of the node's `client`.

    A function of the node's samples and the request: what a simulated client with the same samples would send, bit for
    bit. Raises ValueError for a request beyond the node's own limits, or a model that is not what the server's
    configuration says, and ConfigError where the samples cannot be read.
    """
    if config.local.epochs > node.max_epochs:
        raise ValueError(f"{config.local.epochs} epochs are more than this node's max-epochs={node.max_epochs}")
    if request.model is None:  # never a file that the server names
        raise ValueError("the request carries no model")
    began = time.perf_counter()
    own, start = _own_samples(node, request, config), fetch_state(request)
    torch.set_num_threads(max(1, min(int(config.runtime.client_cpus), os.cpu_count() or 1)))
    model = _model(node, config, own, start)
    train_client(model, start, own, config, client=client, round=request.round, proximal_mu=request.proximal_mu)
    arrays = ArrayRecord({name: tensor.cpu() for name, tensor in floating(model.state_dict()).items()})
    return ClientUpdate(client, arrays, len(own), time.perf_counter() - began)


def _own_samples(node: NodeConfig, request: Request, config: RunConfig) -> ImageSet:
    """The first samples of the node's stream, the same in every round."""
    samples = read_samples(node, 0, min(node.max_samples, config.local.samples or node.max_samples))
    if samples is None:
        raise ValueError("this node has no samples")
    images, labels = samples
    if not 0 <= labels.min() <= labels.max() < request.classes:
        raise ValueError(f"this node's labels are not all within the {request.classes} classes of the server's model")
    return ImageSet(images, labels, request.classes)


def _model(node: NodeConfig, config: RunConfig, own: ImageSet, start: Mapping[str, Tensor]) -> nn.Module:
    """The net for `own` images that `start` fits, built of code that is installed here or of the node owner's."""
    named = config.model.model_dump()
    if config.model.name == CUSTOM:
        if node.model_factory is None:
            raise ValueError("the server's model is a custom one, and this node has no model-factory")
        settings = ModelConfig.model_validate({**named, "factory": node.model_factory})
    else:
        with resolving("installed"):
            settings = ModelConfig.model_validate(named)
        with torch.device("meta"):  # whatever size the server names, nothing is allocated that it did not send
            sizes = _sizes(model_for(settings, own, config.seed).state_dict())
        if sizes != _sizes(start):
            raise ValueError(f"the model that came is not model.name={settings.name} for this node's images")
    return Placement.of_client(config.runtime).place(model_for(settings, own, config.seed))


def _sizes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
