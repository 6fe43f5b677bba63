"""How the model gets to those who subscribed: by reference inside a simulation, in the message otherwise."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from flwr.app import ArrayRecord
from torch import Tensor, nn

from fedmd import storage
from fedmd.flower.wire.header import Request
from fedmd.flower.wire.updates import read_record

_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2**30
_IN_PROCESS = "in this process: "
_states: dict[str, dict[str, Tensor]] = {}


@dataclass(frozen=True)
class Published:
    """One version of the model, in the form in which it travels; exactly one of the two is set."""

    model_file: str = ""
    model: ArrayRecord | None = None


class Exchange(Protocol):
    """`folder` is what clients can see of it ("" when they see nothing)."""

    folder: str

    def publish(self, round: int, model: nn.Module) -> Published:
        """Make `model` the one of `round`."""


class ByReference:
    """A file in shared memory, which every worker of the machine maps: no copy travels."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def publish(self, round: int, model: nn.Module) -> Published:
        """Write this round's model and forget the one before."""
        for stale in Path(self.folder).glob("model-*.safetensors"):
            stale.unlink()
        path = Path(self.folder) / f"model-{round}.safetensors"
        storage.save(path, model.state_dict(), {})
        return Published(model_file=str(path))


class InProcess:
    """A copy of the tensors that stays in this process, for clients that are called in it.

    What travels is a name for it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def publish(self, round: int, model: nn.Module) -> Published:
        """Keep this round's model and forget the one before."""
        keep_state(name := name_in(self.folder), {n: t.cpu().clone() for n, t in model.state_dict().items()})
        return Published(model_file=name)


class InMessage:
    """The whole state dict in the message, for clients on other machines."""

    folder = ""

    def publish(self, round: int, model: nn.Module) -> Published:
        """The state dict as Flower arrays."""
        return Published(model=ArrayRecord({name: t.cpu() for name, t in model.state_dict().items()}))


def name_in(folder: str) -> str:
    """What a model that lies in a client's own process is called there, in the simulation with this folder."""
    return f"{_IN_PROCESS}{folder}"


def keep_state(name: str, state: dict[str, Tensor]) -> None:
    """Let `fetch_state` find `state` under `name` in this process, and no other."""
    _states.clear()
    _states[name] = state


@contextmanager
def shared_memory() -> Iterator[Path]:
    """A temporary folder (in memory where the system has such), gone afterwards."""
    _sweep()
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES  # containers often have 64 MB there
    with TemporaryDirectory(
        prefix=f"fedmd-{os.getpid()}-", dir=_MEMORY if roomy else None, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)
    _states.clear()


def _sweep() -> None:
    """Remove what killed processes left in memory; a live one's folder carries its process id."""
    for folder in _MEMORY.glob("fedmd-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)


def discard_shared_memory() -> None:
    """Remove what this process has there, for one that is about to end without another word."""
    for folder in _MEMORY.glob(f"fedmd-{os.getpid()}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def fetch_state(request: Request) -> dict[str, Tensor]:
    """The published model's state dict. Raises ValueError when the request carries none, or none that can be read."""
    if request.model is not None:
        return {name: tensor.clone() for name, tensor in read_record(request.model).items()}
    if request.model_file.startswith(_IN_PROCESS):
        if request.model_file not in _states:
            raise ValueError("the model that the request names is no longer in this process")
        return dict(_states[request.model_file])
    if request.model_file:
        return storage.load(Path(request.model_file), check=False)[0]  # by every client, from memory, every round
    raise ValueError("the request carries no model")
