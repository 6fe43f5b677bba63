"""Batches of quarantined clients, kept aside: one safetensors file a client and round, bounded in rounds and bytes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedmd import storage

if TYPE_CHECKING:
    from torch import Tensor  # slow to import, and most only look what is there

FOLDER = "quarantine"


@dataclass(frozen=True)
class StoredMessage:
    """A batch in the store."""

    client: int
    round: int
    bytes: int
    path: Path

    def load(self) -> dict[str, Tensor]:
        """The tensors as they were put there. Raises CheckpointError for a damaged file."""
        return storage.load(self.path)[0]


class QuarantineStore:
    """`folder/client-3/round-000012.safetensors`, at most `max_rounds` different rounds and `max_bytes` of them."""

    def __init__(self, folder: Path, *, max_rounds: int, max_bytes: int) -> None:
        self.folder = folder
        self._max_rounds = max_rounds
        self._max_bytes = max_bytes

    def put(self, client: int, round: int, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors`; on disk when this returns. Putting the same client and round again replaces it."""
        storage.save(_path(self.folder, client, round), dict(tensors), {})

    def tidy(self) -> None:
        """Delete batches that a killed server had half written. Nobody may be putting any meanwhile."""
        for client in self.folder.glob("client-*"):
            storage.discard_leftovers(client, "round-*.safetensors")

    def surplus(self, leaving: Collection[StoredMessage] = ()) -> list[StoredMessage]:
        """The oldest batches that must go before the bounds hold, oldest first. Those `leaving` count as gone."""
        gone = {batch.path for batch in leaving}
        kept = [batch for batch in contents(self.folder) if batch.path not in gone]
        rounds = sorted({batch.round for batch in kept})[-self._max_rounds :]
        room, staying = self._max_bytes, set()
        for batch in sorted(kept, key=lambda batch: (-batch.round, batch.client)):
            room -= batch.bytes
            if room < 0 or batch.round not in rounds:
                break
            staying.add(batch.path)
        return [batch for batch in kept if batch.path not in staying]


def contents(folder: Path) -> list[StoredMessage]:
    """Everything in the store in `folder`, by round, then client."""
    kept = []
    for path in folder.glob("client-*/round-*.safetensors"):
        numbers = re.fullmatch(r"client-(\d+)/round-(\d+)\.safetensors", path.relative_to(folder).as_posix())
        if numbers:
            kept.append(StoredMessage(int(numbers[1]), int(numbers[2]), path.stat().st_size, path))
    return sorted(kept, key=lambda batch: (batch.round, batch.client))


def discard(batches: Sequence[StoredMessage]) -> None:
    """Delete `batches`."""
    for batch in batches:
        batch.path.unlink(missing_ok=True)


def _path(folder: Path, client: int, round: int) -> Path:
    return folder / f"client-{client}" / f"round-{round:06d}.safetensors"
