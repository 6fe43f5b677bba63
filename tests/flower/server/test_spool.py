"""Updates beyond so many bytes lie in a file: the numbers are the same, and memory does not grow with the clients."""

import gc
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedmd.audit.reader import read_live
from fedmd.config import RunConfig
from fedmd.flower.server.spool import ArrayInFile, Spool
from fedmd.flower.wire.arrays import ArrayView, pieces, record_of, views
from fedmd.flower.wire.updates import ClientUpdate
from fedmd.runs.cell import Cell
from fedmd.runs.simulation import simulate

Make = Callable[..., RunConfig]
MIXED = {"a": torch.randn(3, 5), "count": torch.tensor(7), "none": torch.zeros(0, 4), "odd": torch.randn(33)}
BYTES = 4 * (15 + 33) + 8


def update(client: int) -> ClientUpdate:
    return ClientUpdate(client, views({name: tensor + client for name, tensor in MIXED.items()}), 5, 0.1)


def in_file(kept: ClientUpdate) -> bool:
    found = {isinstance(array, ArrayInFile) for array in kept.arrays.values() if array.shape != (0, 4)}
    (same,) = found
    return same


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_comes_beyond_the_bound_is_in_a_file_that_has_no_name(tmp_path: Path) -> None:
    gc.collect()  # files of other tests
    files = open_files()
    spool = Spool(tmp_path, 2 * BYTES + 1)
    kept = [spool.keep(update(client)) for client in range(5)]
    assert [in_file(each) for each in kept] == [False, False, True, True, True]
    assert list(tmp_path.iterdir()) == [] and open_files() == files + 1
    for client, each in enumerate(kept):
        assert replace(each, arrays=record_of({})) == replace(update(client), arrays=record_of({}))
        for name, tensor in each.tensors().items():
            assert torch.equal(tensor, MIXED[name] + client) and tensor.dtype == MIXED[name].dtype
        for name, array in each.arrays.items():
            assert b"".join(pieces(array)) == b"".join(pieces(update(client).arrays[name]))
            assert not array.numpy().flags.writeable
    spool.begin_round()
    assert [in_file(spool.keep(update(client))) for client in range(3)] == [False, False, True]
    spool.begin_round()
    del kept, each, array, tensor
    gc.collect()
    assert open_files() == files  # a round's file goes with its updates


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"strategy": {"name": "fedmedian"}}, marks=pytest.mark.slow),
        {"strategy": {"name": "fedadam"}, "attack": {"name": "accumulative", "fraction": 0.4}, "screen": "correct"},
        pytest.param(
            {"attack": {"name": "label_flip", "fraction": 0.4}, "screen": "weight", "quarantine": {"name": "evidence"}},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_no_number_depends_on_it(
    changes: dict[str, Any], small_updates: dict[str, Any], make_config: Make, tmp_path: Path
) -> None:
    screened: dict[str, Any] = {}
    if action := changes.get("screen"):
        screening = {"action": action, "threshold": "fixed", "lower": 0.0, "upper": 5e-4}
        screened = {"defense": {"name": "md_screen"}, "history": {"name": "lag", "lag": 1}, "screening": screening}
    said = {key: value for key, value in changes.items() if key != "screen"}
    found = []
    for name, most in {"memory": 2**28, "file": 0}.items():
        config = make_config({**small_updates, **screened, **said, "runtime.updates_in_memory": most})
        simulate([Cell(config, tmp_path / name)])
        entries = [row.entry for row in read_live(tmp_path / name / "audit") if row.entry.client is not None]
        found.append([(each.action, each.round, each.client, each.content, each.discrepancy) for each in entries])
    assert found[0] == found[1] and len({content for *_, content, _ in found[0] if content is not None}) == 15
    assert "screen" not in changes or {"corrected", "accepted"} <= {action for action, *_ in found[0]}


@pytest.fixture
def arrays(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How many arrays of clients there are `now`, were at `most` at once, and were `ever`."""
    counted, create = Counter[str](), ArrayView.__init__

    def counting(self: ArrayView, values: np.ndarray[Any, Any]) -> None:
        create(self, values)
        weakref.finalize(self, lambda: counted.subtract(["now"]))
        counted.update(["now", "ever"])
        counted["most"] = max(counted["most"], counted["now"])

    monkeypatch.setattr(ArrayView, "__init__", counting)
    yield counted


@pytest.mark.parametrize("in_memory", [0, pytest.param(2**28, marks=pytest.mark.slow)])
def test_no_more_of_a_rounds_updates_are_in_memory_than_are_being_read(
    in_memory: int, small_updates: dict[str, Any], make_config: Make, tmp_path: Path, arrays: Counter[str]
) -> None:
    asked = {"federation": {"clients": 40, "nodes": 40}, "runtime.updates_in_memory": in_memory}
    config = make_config({**small_updates, **asked, "defense": {"name": "md_screen"}})
    simulate([Cell(config, tmp_path)])
    share = arrays["most"] / (arrays["ever"] / config.stream.rounds)
    assert share >= 1 if in_memory else 0 < share < 0.25
