"""Offline training before the stream starts, done once and kept on disk with a snapshot of every epoch."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fedmd import storage
from fedmd.config import RunConfig
from fedmd.data.augment import augment
from fedmd.data.split import Split
from fedmd.models import model_for
from fedmd.seeding import generator, seed_for
from fedmd.storage import digest
from fedmd.training.device import Placement
from fedmd.training.online import online_step
from fedmd.training.sgd import Sgd
from fedmd.types import ImageSet

Weights = dict[str, Tensor]

FORMAT = 2  # of the cache; raise it when the training loop itself changes


@dataclass(frozen=True)
class BurnIn:
    """`snapshots[e - 1]` is the state dict after epoch e, on the CPU."""

    snapshots: tuple[Weights, ...]

    @property
    def final(self) -> Weights:
        """Where the stream starts."""
        return self.snapshots[-1]


def burn_in(
    config: RunConfig,
    images: ImageSet,
    split: Split,
    *,
    placement: Placement,
    cache_dir: Path,
    on_epoch: Callable[[int, int], None] | None = None,
) -> BurnIn:
    """Train on `split.burn_in`, or load what an earlier run with the same fingerprint trained.

    Bit-identical for one seed on one device with one thread count. `on_epoch(epoch, epochs)` is called after
    every epoch that is trained, so never on a cache hit. A damaged file is trained again. Of processes that want the
    same one at the same time one trains, and the others wait for it. Nothing in it depends on its length, so a file of
    more epochs than are asked for serves too.
    """
    epochs = config.training.burn_in.epochs
    own = images.take(split.burn_in)
    path = cache_dir / f"burn-in-{_fingerprint(config, own, placement)}.safetensors"
    if (kept := _kept(path, epochs)) is not None:
        return kept
    with storage.locked(path):
        if (kept := _kept(path, epochs)) is not None:  # somebody else was at it
            return kept
        trained = _train(config, own, placement, on_epoch or (lambda epoch, epochs: None))
        flat = {f"{epoch}/{name}": tensor for epoch, weights in enumerate(trained) for name, tensor in weights.items()}
        storage.save(path, flat, {"epochs": len(trained)})
    return _load(path, epochs)


def _kept(path: Path, epochs: int) -> BurnIn | None:
    try:
        return _load(path, epochs)
    except (FileNotFoundError, storage.CheckpointError):
        return None


def _load(path: Path, epochs: int) -> BurnIn:
    tensors, metadata = storage.load(path)
    if metadata["epochs"] < epochs:
        raise storage.CheckpointError(f"{path} ends after {metadata['epochs']} epochs")
    snapshots: tuple[Weights, ...] = tuple({} for _ in range(epochs))
    for key, tensor in tensors.items():
        epoch, name = key.split("/", 1)
        if int(epoch) < epochs:
            snapshots[int(epoch)][name] = tensor
    return BurnIn(snapshots)


def _train(
    config: RunConfig, own: ImageSet, placement: Placement, on_epoch: Callable[[int, int], None]
) -> list[Weights]:
    """[AP21]'s burn-in: SGD with momentum and weight decay, a new seeded order (and crops) every epoch.

    batchnorm="precise" (ours) ends every epoch with running statistics of the whole burn-in part under the weights
    it ends with. Short burn-ins need it: the running average trails the weights so far that the accuracy of the
    frozen model, the bar for every defence, would be an accident.
    """
    settings = config.training.burn_in
    model = placement.place(model_for(config.model, own, config.seed))
    optimizer = Sgd(model.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
    images, labels = torch.from_numpy(own.images), torch.from_numpy(own.labels)
    snapshots = []
    for epoch in range(settings.epochs):
        randomness = generator(config.seed, "burn_in", round=epoch)
        order = torch.randperm(len(own), generator=randomness)
        torch.manual_seed(seed_for(config.seed, "burn_in", round=epoch))  # for models with dropout
        for chosen in torch.split(order, settings.batch_size):
            batch = augment(images[chosen], config.data.augment, randomness)
            x = placement.images(batch).float().div_(255)
            online_step(model, optimizer, x, labels[chosen].to(placement.device), placement=placement)
        if settings.batchnorm == "precise":
            everything = torch.split(images.float().div_(255), settings.batch_size)
            update_bn((placement.images(x) for x in everything), model)
        snapshots.append({name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()})
        on_epoch(epoch + 1, settings.epochs)
    return snapshots


def _fingerprint(config: RunConfig, own: ImageSet, placement: Placement) -> str:
    """A hash of what decides the weights: `own` (the burn-in data), settings, the model with its code, machine."""
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
