"""The quarantine store: what is put there comes back, and the oldest goes first."""

from pathlib import Path

import pytest
import torch

from fedmd.audit import release_requests as requests
from fedmd.audit.quarantine_store import QuarantineStore, contents, discard
from fedmd.storage import CheckpointError

TENSORS = {"images": torch.arange(48, dtype=torch.uint8).reshape(3, 1, 4, 4), "labels": torch.tensor([1, 0, 2])}


def places(store: QuarantineStore) -> list[tuple[int, int]]:
    return [(kept.client, kept.round) for kept in contents(store.folder)]


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path, max_rounds=9, max_bytes=10**6)
    store.put(7, 12, TENSORS)
    (kept,) = contents(tmp_path)
    assert (kept.client, kept.round, kept.bytes) == (7, 12, kept.path.stat().st_size)
    back = kept.load()
    assert list(back) == list(TENSORS) and all(torch.equal(back[name], TENSORS[name]) for name in TENSORS)
    assert not store.surplus()
    store.put(7, 12, TENSORS)  # a round that is repeated after a crash
    assert places(store) == [(7, 12)]


def test_a_damaged_file_is_no_batch(tmp_path: Path) -> None:
    QuarantineStore(tmp_path, max_rounds=9, max_bytes=10**6).put(7, 12, TENSORS)
    (kept,) = contents(tmp_path)
    kept.path.write_bytes(kept.path.read_bytes()[:40])
    with pytest.raises(CheckpointError):
        kept.load()


def test_rounds_are_bounded(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path, max_rounds=2, max_bytes=10**6)
    for client, round in ((1, 3), (2, 3), (1, 9), (2, 11)):
        store.put(client, round, TENSORS)
    surplus = store.surplus()
    assert [(kept.client, kept.round) for kept in surplus] == [(1, 3), (2, 3)]
    discard(surplus)
    discard(surplus)  # deleting again after a crash is no error
    assert places(store) == [(1, 9), (2, 11)] and not store.surplus()


@pytest.mark.parametrize(("room", "left"), [(0, 0), (1, 1), (2.5, 2), (9, 4)])
def test_bytes_are_bounded(tmp_path: Path, room: float, left: int) -> None:
    QuarantineStore(tmp_path, max_rounds=1, max_bytes=1).put(0, 0, TENSORS)
    (one,) = contents(tmp_path)
    store = QuarantineStore(tmp_path, max_rounds=99, max_bytes=int(room * one.bytes) or 1)
    for round in (1, 2, 3):
        store.put(0, round, TENSORS)
    discard(store.surplus())
    assert places(store) == [(0, round) for round in range(4 - left, 4)]


def test_strange_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("client-x/round-000001.safetensors", "client-1/round-x.safetensors", "client-1/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert contents(tmp_path) == [] and contents(tmp_path / "nowhere") == []


def test_a_batch_that_was_half_written_goes_and_the_others_stay(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path, max_rounds=4, max_bytes=10**6)
    store.tidy()  # there is no folder yet
    store.put(1, 0, TENSORS)
    half = tmp_path / "client-1" / ".round-000001.safetensors.12.ab.tmp"
    half.write_text("half")
    store.tidy()
    assert not half.exists() and places(store) == [(1, 0)]


def test_requests(tmp_path: Path) -> None:
    folder = tmp_path / "quarantine"
    assert requests.pending(folder) == frozenset()
    for client in (3, 12, 3):
        requests.request_release(folder, client, since=5)
    (folder / "release-x").touch()
    assert requests.pending(folder) == {(3, 5), (12, 5)}
    requests.request_release(folder, 12, since=8)  # it was let go and caught again meanwhile
    requests.discard(folder, [(3, 5), (12, 5), (99, 0)])
    assert requests.pending(folder) == {(12, 8)}
    (folder / "release-4").touch()  # by hand
    assert requests.pending(folder) == {(12, 8), (4, -1)}


def test_a_batch_that_was_changed_on_disk_is_not_loaded(tmp_path: Path) -> None:
    store = QuarantineStore(tmp_path, max_rounds=3, max_bytes=10**6)
    store.put(1, 4, {"images": torch.zeros(8)})
    (message,) = contents(tmp_path)
    content = bytearray(message.path.read_bytes())
    content[-1] ^= 1
    message.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="SHA-256"):
        message.load()
