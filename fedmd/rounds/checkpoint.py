"""A run's folder as something to go on from: the checkpoint that replaces the one before."""

import os
from pathlib import Path

from fedmd import storage
from fedmd.audit.reader import read_live
from fedmd.audit.trail import FOLDER
from fedmd.config import ConfigError, RunConfig
from fedmd.report.files import METRICS, SUMMARY
from fedmd.report.verdicts import PARTS, discard_parts
from fedmd.rounds.folder import sole_server
from fedmd.rounds.loop import is_checkpoint_due
from fedmd.storage import CheckpointError, Saved, digest
from fedmd.training.burn_in import BurnIn

CHECKPOINT = "checkpoint.safetensors"  # there until the run has finished
FORMAT = "4"


class Checkpoints:
    """The checkpoint of the run of `config` in `folder`, which began with the models of `burn_in`.

    One file, replaced as a whole: a reader, or a run that goes on, sees the old one or the new one.
    """

    def __init__(self, folder: Path, config: RunConfig, burn_in: BurnIn) -> None:
        self._path = folder / CHECKPOINT
        self._config = config
        self._rests_on = _foundations(config, burn_in)

    def load(self) -> tuple[int, Saved] | None:
        """The number of rounds that are over, and what `save` was given; None when the run had not begun.

        Raises ConfigError when the file is damaged, or the run it is of rests on other foundations than there are here.
        """
        try:
            tree = storage.load_tree(self._path)
            config, rests_on, done, saved = (tree[key] for key in ("config", "rests_on", "done", "saved"))
        except FileNotFoundError:
            return None
        except (CheckpointError, KeyError) as error:
            raise ConfigError(f"resume: {self._path} is not a complete checkpoint ({error}).") from error
        if config != self._config.digest():  # of an earlier run with other settings in the same folder
            return None
        for name, here in self._rests_on.items():
            if rests_on.get(name) != here:
                raise ConfigError(f"resume: {self._path} was made with another {name} than there is here.")
        return done, saved

    def is_due(self, done: int) -> bool:
        """Whether `save` is to be called now that `done` rounds are over."""
        return self._config.runtime.checkpoint_every > 0 and (done == 0 or is_checkpoint_due(self._config, done))

    def save(self, done: int, saved: Saved) -> None:
        """Replace the checkpoint; on disk when this returns."""
        tree = {"config": self._config.digest(), "rests_on": self._rests_on, "done": done, "saved": saved}
        storage.save_tree(self._path, tree)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # its name, too: what a checkpoint makes superfluous is deleted next
        finally:
            os.close(folder)


def why_it_begins_again(folder: Path) -> str | None:
    """Of a run in `folder` that has rounds on record and no checkpoint to go on from; None where nothing is lost."""
    metrics = folder / METRICS
    if (folder / SUMMARY).exists():  # it had finished: what begins now is another run
        return None
    recorded = metrics.exists() and metrics.stat().st_size > 0
    if not recorded and not any(record.entry.kind == "message" for record in read_live(folder / FOLDER)):
        return None
    found = (folder / CHECKPOINT).exists()
    return "the checkpoint is of other settings or another fedmd" if found else "the checkpoint is missing"


def discard_checkpoint(folder: Path) -> None:
    """Remove the checkpoint, of a run that has finished or is to begin anew."""
    (folder / CHECKPOINT).unlink(missing_ok=True)


def tidy(folder: Path) -> None:
    """Remove what a run in `folder` keeps until it has finished: one may be killed in between.

    Raises ConfigError when another process is working there.
    """
    if (folder / CHECKPOINT).exists() or (folder / PARTS).exists() or any(folder.glob(".*.tmp")):
        with sole_server(folder):
            discard_checkpoint(folder)
            discard_parts(folder)


def _foundations(config: RunConfig, burn_in: BurnIn) -> dict[str, str]:
    """What a run rests on and no checkpoint holds, by name: the format, hashes of models and of a file."""
    snapshots = [burn_in.final]
    snapshots += [burn_in.snapshots[epoch - 1] for epoch in config.history.make().epochs]
    found = {"format": FORMAT, "burn-in": digest(*(t.numpy() for snapshot in snapshots for t in snapshot.values()))}
    if (file := config.threshold.make().file) is not None:
        found["threshold.path"] = digest(file.read_bytes())
    return found
