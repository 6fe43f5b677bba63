"""Burn-in learns, repeats itself bit for bit, and is done once."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.sources.base import load_images
from fedmd.data.split import split_images
from fedmd.models import model_for
from fedmd.storage import digest
from fedmd.training.burn_in import BurnIn, burn_in
from fedmd.training.device import Placement
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]


def run(config: RunConfig, images: ImageSet, cache: Path) -> tuple[BurnIn, int]:
    """The burn-in, and how many epochs were trained for it."""
    epochs: list[int] = []
    result = burn_in(
        config,
        images,
        split_images(images, config.data.splits, config.seed),
        placement=Placement.of(config.runtime),
        cache_dir=cache,
        on_epoch=lambda epoch, of: epochs.append(epoch),
    )
    assert epochs in ([], list(range(1, config.training.burn_in.epochs + 1)))
    return result, len(epochs)


def hash_of(result: BurnIn) -> str:
    return digest(*(tensor.numpy() for snapshot in result.snapshots for tensor in snapshot.values()))


def test_there_is_a_loadable_snapshot_an_epoch(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    config = make_config()
    result, trained = run(config, images, tmp_path)
    assert trained == len(result.snapshots) == 2 and result.final is result.snapshots[-1]
    model = model_for(config.model, images, config.seed)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    for snapshot, steps in zip(result.snapshots, (4, 8), strict=True):
        model.load_state_dict(snapshot)
        assert list(snapshot) == list(fresh)
        assert snapshot["2.num_batches_tracked"] == steps
        assert not torch.equal(snapshot["1.weight"], fresh["1.weight"])


def test_it_learns_real_digits(make_config: Make, tmp_path: Path) -> None:
    config = make_config({"data.splits.burn_in": 600, "training.burn_in.epochs": 6})
    images = load_images(config.data, tmp_path)
    result, _ = run(config, images, tmp_path)
    model = model_for(config.model, images, config.seed)
    model.load_state_dict(result.final)
    split = split_images(images, config.data.splits, config.seed)
    assert accuracy(model, *images.take(split.stream).tensors()) > 0.8


def test_a_second_run_loads_what_the_first_trained(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    first, trained = run(make_config(), images, tmp_path)
    second, again = run(make_config(), images, tmp_path)
    assert (trained, again) == (2, 0)
    assert hash_of(first) == hash_of(second)


def hashed_run(config: RunConfig, images: ImageSet, cache: Path) -> tuple[str, int]:
    """`run` for another process, which gets the hash back instead of tensors."""
    result, trained = run(config, images, cache)
    return hash_of(result), trained


def test_two_processes_that_want_the_same_at_once_train_it_once(
    make_config: Make, images: ImageSet, tmp_path: Path
) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        tried = [pool.submit(hashed_run, make_config(), images, tmp_path) for _ in range(2)]
        (one, trained), (other, again) = (found.result() for found in tried)
    assert sorted((trained, again)) == [0, 2] and one == other


def test_a_longer_burn_in_serves_a_shorter_one(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    shorter, _ = run(make_config({"training.burn_in.epochs": 1}), images, tmp_path / "alone")
    run(make_config(), images, tmp_path / "shared")
    found, trained = run(make_config({"training.burn_in.epochs": 1}), images, tmp_path / "shared")
    assert trained == 0 and len(found.snapshots) == 1
    assert hash_of(found) == hash_of(shorter)


def test_training_again_gives_the_same_bits(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    config = make_config({"data.augment": "crop_flip"})
    one, two = (run(config, images, tmp_path / name) for name in ("a", "b"))
    assert one[1] == two[1] == 2
    assert hash_of(one[0]) == hash_of(two[0])


def test_another_process_trains_the_same_bits(make_config: Make, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    config = make_config()
    decoded = default_cache_dir(config.runtime.cache_dir)
    images = load_images(config.data, decoded)
    expected, _ = run(config, images, tmp_path / "here")
    program = (
        "import sys, torch; from pathlib import Path\n"
        f"torch.set_num_threads({threads})\n"
        "from fedmd.config import RunConfig\n"
        "from fedmd.data.sources.base import load_images\n"
        "from fedmd.data.split import split_images\n"
        "from fedmd.training.burn_in import burn_in\n"
        "from fedmd.training.device import Placement\n"
        "config, cache, decoded = RunConfig.parse(sys.argv[1]), *map(Path, sys.argv[2:])\n"
        "images = load_images(config.data, decoded)\n"
        "split = split_images(images, config.data.splits, config.seed)\n"
        "burn_in(config, images, split, placement=Placement.of(config.runtime), cache_dir=cache)\n"
    )
    arguments = [config.to_json(), str(tmp_path / "there"), str(decoded)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    found, trained = run(config, images, tmp_path / "there")
    assert trained == 0  # its fingerprint is ours
    assert hash_of(found) == hash_of(expected)


@pytest.mark.parametrize("kept", [0, 9, 1000, -1])
def test_a_damaged_cache_file_is_trained_again(make_config: Make, images: ImageSet, tmp_path: Path, kept: int) -> None:
    expected = hash_of(run(make_config(), images, tmp_path)[0])
    file = next(tmp_path.glob("burn-in-*"))
    file.write_bytes(file.read_bytes()[:kept])
    again, trained = run(make_config(), images, tmp_path)
    assert trained == 2 and hash_of(again) == expected
    assert run(make_config(), images, tmp_path)[1] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"data.augment": "crop"},
        {"model.width": 5},
        {"model.name": "cnn"},
        {"training.burn_in.epochs": 3},
        {"training.burn_in.lr": 0.05},
        {"training.burn_in.weight_decay": 0.0},
        {"data.splits.burn_in": 59},
        {"runtime.precision": "bf16"},
        {"runtime.channels_last": True},
    ],
)
def test_whatever_decides_the_weights_is_in_the_key(
    make_config: Make, images: ImageSet, tmp_path: Path, changes: dict[str, object]
) -> None:
    run(make_config(), images, tmp_path)
    assert run(make_config(changes), images, tmp_path)[1] > 0


def test_other_pixels_and_labels_are_in_the_key(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    run(make_config(), images, tmp_path)
    brighter = ImageSet(images.images // 2, images.labels, images.classes)
    assert run(make_config(), brighter, tmp_path)[1] == 2


def test_what_does_not_decide_the_weights_shares_them(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    run(make_config(), images, tmp_path)
    others = {"data.splits.test": 10, "stream.batch_size": 2, "federation.clients": 3, "attack.name": "none"}
    assert run(make_config(others), images, tmp_path)[1] == 0


def test_a_last_batch_of_one_is_no_obstacle(make_config: Make, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tiny = ImageSet(rng.integers(0, 256, (140, 1, 4, 4), dtype=np.uint8), np.arange(140) % 2, 2)
    result, _ = run(make_config({"data.splits.burn_in": 33, "model.width": 2}), tiny, tmp_path)
    assert all(tensor.isfinite().all() for tensor in result.final.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_cuda_snapshots_come_back_to_the_cpu(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    config = make_config({"runtime.device": "cuda", "runtime.precision": "bf16", "runtime.channels_last": True})
    result, _ = run(config, images, tmp_path)
    assert all(not tensor.is_cuda and tensor.isfinite().all() for tensor in result.final.values())
    assert run(config, images, tmp_path)[1] == 0
