"""What decides a burn-in's weights, as one hash: equal fingerprints, equal bits."""

import inspect
import json

import torch
from torch import nn

from fedmd.config import RunConfig
from fedmd.models import model_for
from fedmd.storage import digest
from fedmd.training.device import Placement
from fedmd.types import ImageSet

FORMAT = 2  # raise it when the training loop itself changes


def burn_in_fingerprint(config: RunConfig, own: ImageSet, placement: Placement) -> str:
    """A hash of the burn-in data `own`, the settings, the model (its code too), the machine and torch."""
    model = model_for(config.model, own, config.seed)
    settings = {
        "format": FORMAT,
        "seed": config.seed,
        "burn_in": config.training.burn_in.model_dump(exclude={"epochs"}),  # a longer one begins as a shorter one
        "augment": config.data.augment,
        "model": config.model.model_dump(),
        "classes": own.classes,
        "dtype": str(placement.dtype),
        "channels_last": placement.channels_last,
        "machine": _machine(placement.device),
        "torch": torch.__version__,
    }
    weights = [
        tensor.cpu().reshape(-1).contiguous().view(torch.uint8).numpy() for tensor in model.state_dict().values()
    ]
    return digest(json.dumps(settings, sort_keys=True), own.images, own.labels, *_code(model), *weights)


def _machine(device: torch.device) -> str:
    """What of the hardware changes rounding: a GPU's name, or a CPU's instructions and thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()} {torch.get_num_threads()} threads"


def _code(model: nn.Module) -> list[str]:
    """The structure of `model` and the source of every module class in it that is not PyTorch's."""
    classes = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    sources = []
    for kind in sorted(classes, key=lambda kind: (kind.__module__, kind.__qualname__)):
        try:
            sources.append(inspect.getsource(kind))
        except (OSError, TypeError):  # defined in a REPL or compiled: its structure and weights must do
            sources.append(kind.__qualname__)
    return [str(model), *sources]
