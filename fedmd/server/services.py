"""What a run keeps in its folder beside the report: the audit trail, the quarantine's shelf, and the last models."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from fedmd import checkpoint
from fedmd.audit import requests, shelf, trail
from fedmd.audit.chain import Position
from fedmd.audit.entry import Entry
from fedmd.checkpoint import Saved
from fedmd.config import ConfigError, QuarantineConfig, RunConfig
from fedmd.server.guard import Gate, Guard
from fedmd.server.learner import OnlineLearner
from fedmd.server.update_guard import UpdateGuard

MODELS = "models.safetensors"


@contextmanager
def guarding(config: RunConfig, folder: Path, saved: Saved | None = None, round: int = 0) -> Iterator[Guard]:
    """The guard of a run of mode=stream in `folder`, see `_recording`."""
    with _recording(config, folder) as (recorded, store):
        guard = Guard(config.quarantine, trail=recorded, shelf=store)
        _begin(guard, config, folder, recorded, saved, round)
        yield guard


@contextmanager
def guarding_updates(
    config: RunConfig, folder: Path, saved: Saved | None = None, round: int = 0
) -> Iterator[UpdateGuard]:
    """The guard of a run of mode=update in `folder`, see `_recording`."""
    losses = 1 if config.screening.loss == "screened" else 0
    with _recording(config, folder) as (recorded, store):
        guard = UpdateGuard(config.quarantine, trail=recorded, shelf=store, losses=losses)
        _begin(guard, config, folder, recorded, saved, round)
        yield guard


@contextmanager
def _recording(config: RunConfig, folder: Path) -> Iterator[tuple[trail.AuditTrail, shelf.Shelf | None]]:
    """The trail in `folder` and, with quarantine, the shelf."""
    store = shelf_in(folder, config.quarantine) if config.quarantine.name != "none" else None
    with trail.AuditTrail(folder / trail.FOLDER, rotate_bytes=config.audit.rotate_bytes) as recorded:
        yield recorded, store


def _begin(
    guard: Gate[Any], config: RunConfig, folder: Path, recorded: trail.AuditTrail, saved: Saved | None, round: int
) -> None:
    """A new run, or the one whose guard was `saved`, which goes on with `round`.

    What the trail knows of an earlier run, or of later rounds, becomes void, and stays. Raises ConfigError when the
    trail is not the one that the saved guard wrote.
    """
    if saved is not None:
        try:
            guard.restore(saved, round)
        except ValueError as error:
            raise ConfigError(f"resume: {error}.") from error
        return
    store = shelf_in(folder, config.quarantine)  # of an earlier run, perhaps, that had a quarantine
    shelf.discard(shelf.contents(store.folder))
    requests.settle(store.folder, requests.pending(store.folder))
    if recorded.position != Position():
        recorded.rewind(Position(), "a new run in the same folder")
    recorded.append([Entry("run", "started", content=config.digest())])


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
