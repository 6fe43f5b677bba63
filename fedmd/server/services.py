"""What a run keeps in its folder beside the report: the audit trail, the quarantine's shelf, and the last models."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from fedmd import checkpoint
from fedmd.audit import requests, shelf, trail
from fedmd.audit.chain import Position
from fedmd.audit.entry import Entry
from fedmd.config import QuarantineConfig, RunConfig
from fedmd.server.guard import Guard
from fedmd.server.learner import OnlineLearner
from fedmd.server.update_guard import UpdateGuard

MODELS = "models.safetensors"


Services = tuple[trail.AuditTrail, shelf.Shelf | None]


@contextmanager
def guarding(config: RunConfig, folder: Path) -> Iterator[Guard]:
    """The guard of a new run of mode=stream in `folder`, see `recording`."""
    with recording(config, folder) as (recorded, store):
        yield Guard(config.quarantine, trail=recorded, shelf=store)


@contextmanager
def guarding_updates(config: RunConfig, folder: Path) -> Iterator[UpdateGuard]:
    """The guard of a new run of mode=update in `folder`, see `recording`."""
    with recording(config, folder) as (recorded, store):
        losses = 1 if config.screening.loss == "screened" else 0
        yield UpdateGuard(config.quarantine, trail=recorded, shelf=store, losses=losses)


@contextmanager
def recording(config: RunConfig, folder: Path) -> Iterator[Services]:
    """A new run's trail and, with quarantine, its shelf. What there is in the trail of an earlier run becomes void."""
    store = shelf_in(folder, config.quarantine)
    shelf.discard(shelf.contents(store.folder))
    requests.settle(store.folder, requests.pending(store.folder))
    with trail.AuditTrail(folder / trail.FOLDER, rotate_bytes=config.audit.rotate_bytes) as recorded:
        if recorded.position != Position():
            recorded.rewind(Position(), "a new run in the same folder")
        digest = hashlib.sha256(config.to_json().encode()).hexdigest()
        recorded.append([Entry("run", "started", content=digest)])
        yield recorded, store if config.quarantine.name != "none" else None


def shelf_in(folder: Path, config: QuarantineConfig) -> shelf.Shelf:
    """The shelf of the run in `folder`."""
    return shelf.Shelf(folder / shelf.FOLDER, max_rounds=config.max_rounds, max_bytes=config.max_bytes)


def save_models(learner: OnlineLearner, folder: Path) -> None:
    """The current and the historical model, so that kept batches can be judged later."""
    named: dict[str, Tensor] = {}
    for name, model in (("current", learner.model), ("historical", learner.pipeline.history.model)):
        named |= {f"{name}.{key}": tensor for key, tensor in model.state_dict().items()}
    checkpoint.save(folder / MODELS, named, {"steps": learner.pipeline.steps})


def load_models(learner: OnlineLearner, folder: Path) -> None:
    """Put back what `save_models` saved. Raises FileNotFoundError or CheckpointError."""
    tensors, metadata = checkpoint.load(folder / MODELS)
    for name, model in (("current", learner.model), ("historical", learner.pipeline.history.model)):
        prefix = f"{name}."
        model.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    learner.pipeline.steps = int(metadata["steps"])
