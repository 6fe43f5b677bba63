"""What of a run outlives a killed server beside model, gate and clients."""

from pathlib import Path

import numpy as np

from fedmd.report.recorder import RecordPosition
from fedmd.runs.federation import Progress
from fedmd.storage import load_tree, save_tree
from fedmd.types import ExampleImages


def test_runs_have_names_of_their_own() -> None:
    assert Progress().session != Progress().session and Progress().session.isalnum()


def test_it_comes_back_with_its_name(tmp_path: Path) -> None:
    images = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    one = Progress(poisoned_rounds=[2, 3], seconds=1.5, examples=ExampleImages(images, images + 1, images + 2))
    for progress in (one, Progress()):
        save_tree(tmp_path / "state", progress.state(RecordPosition(7, 2), 2.0))
        again = Progress.of(load_tree(tmp_path / "state"))
        assert again.session == progress.session and again.recorded == RecordPosition(7, 2)
        assert again.poisoned_rounds == progress.poisoned_rounds and again.seconds == progress.seconds + 2.0
        assert (again.examples is None) == (progress.examples is None)
    again = Progress.of({**one.state(RecordPosition(7, 2), 0.0)})
    assert again.examples is not None and np.array_equal(again.examples.corrected, images + 2)
    assert Progress.of(None).poisoned_rounds == []
