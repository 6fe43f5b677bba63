"""What a run keeps in its folder beside the report: the audit trail, the quarantine's shelf, and the last models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fedmd import storage
from fedmd.audit import quarantine_store as shelf
from fedmd.audit import release_requests as requests
from fedmd.audit import trail
from fedmd.audit.chain import Position
from fedmd.audit.entry import Entry
from fedmd.config import ConfigError, QuarantineConfig, RunConfig
from fedmd.rounds.gate import Gate, Guard
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.update_guard import UpdateGuard
from fedmd.storage import Saved

MODELS = "models.safetensors"


G = TypeVar("G", bound=Gate[Any])


@contextmanager
def guarding(config: RunConfig, folder: Path, saved: Saved | None = None, round: int = 0) -> Iterator[Guard]:
    """The guard of a run of mode=stream, see `_opened`."""
    with _opened(Guard, config, folder, saved, round) as guard:
        yield guard


@contextmanager
def guarding_updates(
    config: RunConfig, folder: Path, saved: Saved | None = None, round: int = 0
) -> Iterator[UpdateGuard]:
    """The guard of a run of mode=update, see `_opened`."""
    make = partial(UpdateGuard, losses=1 if config.screening.loss == "screened" else 0)
    with _opened(make, config, folder, saved, round) as guard:
        yield guard


@contextmanager
def _opened(make: Callable[..., G], config: RunConfig, folder: Path, saved: Saved | None, round: int) -> Iterator[G]:
    """The guard of a new run in `folder`, or of the one whose guard was `saved`, which goes on with `round`.

    What the trail there knows of an earlier run, or of later rounds, becomes void, and stays. Raises ConfigError when
    the trail is not the one that the saved guard wrote.
    """
    store = shelf_in(folder, config.quarantine)
    store.tidy()
    with trail.AuditTrail(folder / trail.FOLDER, rotate_bytes=config.audit.rotate_bytes) as recorded:
        guard = make(config.quarantine, trail=recorded, shelf=store if config.quarantine.name != "none" else None)
        if saved is not None:
            try:
                guard.restore(saved, round)
            except ValueError as error:
                raise ConfigError(f"resume: {error}.") from error
        else:
            shelf.discard(shelf.contents(store.folder))
            requests.settle(store.folder, requests.pending(store.folder))
            if recorded.position != Position():
                recorded.rewind(Position(), "a new run in the same folder")
            recorded.append([Entry("run", "started", content=config.digest())])
        yield guard


def shelf_in(folder: Path, config: QuarantineConfig) -> shelf.Shelf:
    """The shelf of the run in `folder`."""
    return shelf.Shelf(folder / shelf.FOLDER, max_rounds=config.max_rounds, max_bytes=config.max_bytes)


def save_models(learner: OnlineLearner, folder: Path) -> None:
    """The current and the historical model, so that kept batches can be judged later."""
    named: dict[str, Tensor] = {}
    for name, model in (("current", learner.model), ("historical", learner.pipeline.historical)):
        named |= {f"{name}.{key}": tensor for key, tensor in model.state_dict().items()}
    storage.save(folder / MODELS, named, {"steps": learner.pipeline.steps})


def load_models(learner: OnlineLearner, folder: Path) -> None:
    """Put back what `save_models` saved. Raises FileNotFoundError or CheckpointError."""
    tensors, metadata = storage.load(folder / MODELS)
    for name, model in (("current", learner.model), ("historical", learner.pipeline.historical)):
        prefix = f"{name}."
        model.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
    learner.pipeline.steps = int(metadata["steps"])
