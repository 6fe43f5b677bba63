"""What colluders share: computed once, by whichever process comes first."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from fedmd import storage
from fedmd.attacks.shared_cache import LASTING, SharedCache


def once_in_a_process(folder: str, gate: "multiprocessing.synchronize.Barrier", results: str) -> None:  # type: ignore[name-defined]
    """Ask for one thing; note each computation, and what came back."""

    def compute() -> dict[str, torch.Tensor]:
        with open(f"{results}/computed", "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(0.3)  # the others arrive while it is being computed
        return {"x": torch.full((3,), float(os.getpid()))}

    gate.wait()
    got = SharedCache(Path(folder)).once("trigger", 0, compute)
    Path(results, f"got-{os.getpid()}").write_text(str(got["x"].tolist()))


def test_two_processes_compute_once_and_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(2)
    (tmp_path / "results").mkdir()
    arguments = (str(tmp_path / "board"), gate, str(tmp_path / "results"))
    processes = [context.Process(target=once_in_a_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    computed = (tmp_path / "results" / "computed").read_text().split()
    answers = {path.read_text() for path in (tmp_path / "results").glob("got-*")}
    assert len(computed) == 1
    assert answers == {str([float(computed[0])] * 3)}


def test_once_per_kind_and_version(tmp_path: Path) -> None:
    board = SharedCache(tmp_path / "new")
    calls: list[str] = []

    def value(name: str) -> dict[str, torch.Tensor]:
        calls.append(name)
        return {name: torch.tensor([float(len(calls))])}

    first = board.once("direction", 3, lambda: value("a"))
    assert torch.equal(board.once("direction", 3, lambda: value("a"))["a"], first["a"])
    board.once("direction", 4, lambda: value("b"))
    board.once("trigger", 3, lambda: value("c"))
    assert calls == ["a", "b", "c"]
    board.once("direction", 4, lambda: value("d"))  # a new version of another kind did not push it out
    assert calls == ["a", "b", "c"]


def test_one_object_reads_a_version_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SharedCache(tmp_path).once("direction", 1, lambda: {"h": torch.ones(1)})
    board, reads = SharedCache(tmp_path), []
    load = storage.load
    monkeypatch.setattr(storage, "load", lambda path: reads.append(path.name) or load(path))
    for _ in range(3):
        board.once("direction", 1, lambda: pytest.fail("computed again"))
    board.once("direction", 2, lambda: {"h": torch.zeros(1)})
    assert not board.once("direction", 2, lambda: pytest.fail("computed again"))["h"].any()
    assert reads == ["direction-1.safetensors"]


def test_only_the_newest_version_is_kept(tmp_path: Path) -> None:
    board = SharedCache(tmp_path)
    for version in range(5):
        board.once("direction", version, lambda: {"h": torch.zeros(1000)})
    board.once("direction-like", 0, lambda: {"h": torch.zeros(1)})
    kept = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert kept == ["direction-4.safetensors", "direction-like-0.safetensors"]


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    tensors = {f"{i:04d}": torch.randn(i, 3, generator=torch.Generator().manual_seed(i)) for i in range(12)}
    board = SharedCache(tmp_path)
    board.once("direction", 0, lambda: tensors)
    read = SharedCache(tmp_path).once("direction", 0, lambda: pytest.fail("computed again"))
    assert list(read) == list(tensors)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_failed_computation_leaves_nothing_and_no_lock(tmp_path: Path) -> None:
    board = SharedCache(tmp_path)
    with pytest.raises(ZeroDivisionError):
        board.once("trigger", 0, lambda: {"x": torch.zeros(1 // 0)})
    assert board.once("trigger", 0, lambda: {"x": torch.ones(1)})["x"].item() == 1


def test_the_first_announcement_stands(tmp_path: Path) -> None:
    board = SharedCache(tmp_path)
    assert board.announced("trigger_round") is None
    board.announce("trigger_round", 7)
    SharedCache(tmp_path).announce("trigger_round", 9)
    assert board.announced("trigger_round") == 7
    assert board.announced("error_at_start") is None
    board.announce("error_at_start", 0.1 + 0.2)
    assert board.announced("error_at_start") == 0.1 + 0.2  # to the last bit


def test_seconds_are_summed_by_round(tmp_path: Path) -> None:
    board = SharedCache(tmp_path)
    assert board.seconds(1) == 0
    for round, seconds in ((1, 0.25), (2, 10.0), (1, 0.5), (11, 3.0)):
        SharedCache(tmp_path).add_seconds(round, seconds)
    assert [board.seconds(round) for round in (0, 1, 2, 11)] == [0, 0.75, 10, 3]


def test_what_colluders_agreed_on_survives_them(tmp_path: Path) -> None:
    """Lasting tensors and announced numbers go into a checkpoint; a round's own tensors and the server's do not."""
    board, other = SharedCache(tmp_path / "old"), SharedCache(tmp_path / "new")
    assert board.state() == {"numbers": {}, "lasting": {}}
    board.once("trigger", LASTING, lambda: {"x": torch.tensor([0.1, 0.2])})
    board.once("direction", 0, lambda: {"h": torch.zeros(2)})
    storage.save(board.folder / "model-0.safetensors", {"w": torch.ones(3)}, {})  # published there by the server
    board.announce("error_at_start", 0.1 + 0.2)
    state = board.state()
    assert state["numbers"] == {"error_at_start": 0.1 + 0.2} and list(state["lasting"]) == ["trigger"]
    other.restore(state)
    assert other.announced("error_at_start") == 0.1 + 0.2 and other.announced("trigger_round") is None
    kept = other.once("trigger", LASTING, lambda: pytest.fail("computed again"))
    assert torch.equal(kept["x"], torch.tensor([0.1, 0.2]))
    assert torch.equal(other.once("direction", 0, lambda: {"h": torch.ones(1)})["h"], torch.ones(1))
