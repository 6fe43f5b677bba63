"""What colluders share: a folder in which each thing is computed once and then read by the others.

In a simulation all malicious clients of one machine see one folder. Where they cannot (another host), each has a
folder of its own and recomputes the same values from seeds and the model it was sent.
"""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from fedmd import storage
from fedmd.storage import Saved

LASTING = "lasting"


class SharedCache:
    """A folder of memoised tensors, announced numbers and the seconds that crafting took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # made when something is first written: honest clients leave no trace
        self._latest: dict[str, tuple[int | str, dict[str, torch.Tensor]]] = {}  # of each kind, read by this object

    def once(
        self, kind: str, version: int | str, compute: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        """The tensors called `kind` at `version`; the first to ask computes, the others wait and read.

        Only the newest version of a kind is kept. `version` is a round, or LASTING for what holds for the whole run.
        One object reads a version from disk once, however many members ask through it; the tensors are everybody's.
        """
        known = self._latest.get(kind)
        if known is None or known[0] != version:
            known = self._latest[kind] = version, self._once(kind, version, compute)
        return known[1]

    def _once(
        self, kind: str, version: int | str, compute: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, torch.Tensor]:
        path = self.folder / f"{kind}-{version}.safetensors"
        with self._locked(kind):
            if not path.exists():
                tensors = compute()
                for stale in self.folder.glob(f"{kind}-*.safetensors"):
                    stale.unlink()
                storage.save_tree(path, tensors)
                return tensors
            return storage.load_tree(path)  # within the lock: a newer version would remove the file

    def keep(self, kind: str, saved: Saved) -> None:
        """Remember `saved` for later rounds, in place of what was kept of this kind; not one that `once` computes."""
        with self._locked(kind):
            storage.save_tree(self.folder / f"{kind}-{LASTING}.safetensors", saved)

    def kept(self, kind: str) -> Saved | None:
        """What was kept last, or None so far."""
        path = self.folder / f"{kind}-{LASTING}.safetensors"
        return storage.load_tree(path) if path.exists() else None

    def announce(self, name: str, value: float) -> None:
        """Fix a number for all colluders. The first announcement stands."""
        with self._locked(name):
            path = self.folder / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(value))

    def announced(self, name: str) -> float | None:
        """The announced number, or None so far."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        with self._locked(name):
            return float(json.loads(path.read_text()))

    def add_seconds(self, round: int, seconds: float) -> None:
        """Book the time one colluder spent crafting in `round`."""
        with self._locked("seconds"), self._of_round("seconds", round).open("a") as file:
            file.write(f"{seconds}\n")

    def seconds(self, round: int) -> float:
        """Seconds all colluders of this folder spent crafting in `round`."""
        path = self._of_round("seconds", round)
        return sum(map(float, path.read_text().splitlines())) if path.exists() else 0.0

    def note(self, round: int, name: str, value: float) -> None:
        """Write down a number of `round`, for the report; nothing goes by it."""
        with self._locked("notes"), self._of_round("notes", round).open("a") as file:
            file.write(f"{name} {value}\n")

    def notes(self, round: int) -> dict[str, float]:
        """The numbers that colluders of this folder noted in `round`, by name; the last one of a name stands."""
        path = self._of_round("notes", round)
        rows = (line.split() for line in path.read_text().splitlines()) if path.exists() else ()
        return {name: float(value) for name, value in rows}

    def state(self) -> Saved:
        """What later rounds build on: the announced numbers, and what is lasting."""
        numbers = {path.stem: self.announced(path.stem) for path in sorted(self.folder.glob("*.json"))}
        lasting = sorted(self.folder.glob(f"*-{LASTING}.safetensors"))
        return {
            "numbers": numbers,
            "lasting": {path.stem.removesuffix(f"-{LASTING}"): storage.load_tree(path) for path in lasting},
        }

    def restore(self, saved: Saved) -> None:
        """Put back, into an empty folder, what `state` returned."""
        for name, number in saved["numbers"].items():
            self.announce(name, number)
        for kind, lasting in saved["lasting"].items():
            storage.save_tree(self.folder / f"{kind}-{LASTING}.safetensors", lasting)

    def _of_round(self, what: str, round: int) -> Path:
        """A file a round, so that what a round costs does not grow with those before."""
        return self.folder / f"{what}-{round}.txt"

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        self.folder.mkdir(exist_ok=True)
        with (self.folder / f"{name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
