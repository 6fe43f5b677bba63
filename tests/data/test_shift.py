"""The shift against independent formulas, and who lives before and after it."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmd.config import ConfigError, RunConfig, ShiftConfig
from fedmd.data.clients import ClientStreams
from fedmd.data.federated import load_federated_data
from fedmd.data.shift import CHUNK, cached_shift, shifted, withheld
from fedmd.data.split import Split, split_images
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]
PARTS = ("burn_in", "trusted", "attacker", "test", "stream")
AFTER = PARTS[1:]  # what lives after the shift
ROTATION = {"stream.shift": {"name": "rotation", "angle": 90}}
CORRUPTIONS = [("noise", 0.04, 1), ("blur", 0.7, 3), ("contrast", 0.15, 5), ("contrast", 0.75, 1)]


@pytest.fixture
def photos() -> ImageSet:
    rng = np.random.default_rng(1)
    return ImageSet(rng.integers(0, 256, (40, 3, 9, 9), dtype=np.uint8), rng.integers(0, 4, 40), 4)


def cut(images: ImageSet, config: RunConfig, absent: tuple[int, ...] = ()) -> Split:
    return split_images(images, config.data.splits, config.seed, absent)


def nobody() -> Split:
    """A split whose burn-in is empty: everything is shifted."""
    return Split(*[np.zeros(0, np.int64)] * 5)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3), (-90, 3), (0, 0)])
@pytest.mark.parametrize("side", [8, 9])
def test_quarter_turns_are_numpys(angle: float, turns: int, side: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, side, side), dtype=np.uint8)
    images = ImageSet(pixels, np.zeros(5, np.int64), 1)
    turned = shifted(images, nobody(), ShiftConfig(name="rotation", angle=angle), 0).images
    assert np.array_equal(turned, np.rot90(pixels, turns, axes=(2, 3)))


def test_other_angles_interpolate_bilinearly_with_black_outside(photos: ImageSet) -> None:
    degrees, (height, width) = 30.0, photos.images.shape[2:]
    turned = shifted(photos, nobody(), ShiftConfig(name="rotation", angle=degrees), 0).images
    image, c, s = np.pad(photos.images[7, 1], 20).astype(float), *(f(np.radians(degrees)) for f in (np.cos, np.sin))
    for row, column in ((4, 4), (2, 5), (7, 3), (0, 4)):
        y, x = row - (height - 1) / 2, column - (width - 1) / 2
        y, x = y * c + x * s + (height - 1) / 2 + 20, -y * s + x * c + (width - 1) / 2 + 20  # where it came from
        top, left = int(y), int(x)
        wy, wx = y - top, x - left
        expected = (
            (1 - wy) * ((1 - wx) * image[top, left] + wx * image[top, left + 1])
            + wy * ((1 - wx) * image[top + 1, left] + wx * image[top + 1, left + 1])
        )  # fmt: skip
        assert abs(turned[7, 1, row, column] - expected) < 0.51
    assert (turned[:, :, 0, 0] == 0).all()


@pytest.mark.parametrize(("kind", "parameter", "severity"), CORRUPTIONS)
def test_corruptions_follow_their_formulas(kind: str, parameter: float, severity: int, photos: ImageSet) -> None:
    config = ShiftConfig(name="corruption", corruption=kind, severity=severity)
    out = shifted(photos, nobody(), config, seed=3).images.astype(float)
    x = photos.images.astype(float)
    if kind == "contrast":
        for n, channel in ((0, 0), (39, 2)):
            mean = x[n, channel].sum() / 81
            assert np.abs(out[n, channel] - (mean + parameter * (x[n, channel] - mean))).max() <= 0.5 + 1e-6
    elif kind == "blur":
        reach = int(4 * parameter + 0.5)
        kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * parameter**2))
        weights = np.outer(kernel, kernel) / kernel.sum() ** 2
        padded = np.pad(x[5, 2], reach, mode="edge")
        for row, column in ((0, 0), (4, 4), (8, 3)):
            window = padded[row : row + 2 * reach + 1, column : column + 2 * reach + 1]
            assert abs(out[5, 2, row, column] - (window * weights).sum()) <= 0.5 + 1e-6
    else:
        inside = (x > 60) & (x < 195)
        added = (out - x)[inside] / 255
        assert abs(added.std() - parameter) < 0.05 * parameter and abs(added.mean()) < 0.1 * parameter


def test_noise_is_a_matter_of_the_seed_and_the_images_place(photos: ImageSet) -> None:
    config = ShiftConfig(name="corruption", corruption="noise")
    one, same, other = (shifted(photos, nobody(), config, seed).images for seed in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    some = replace(nobody(), burn_in=np.arange(10))
    assert np.array_equal(shifted(photos, some, config, 1).images[10:], one[10:])


def test_images_past_the_first_chunk_are_shifted_too() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2 * CHUNK + 3, 1, 4, 4), dtype=np.uint8)
    images = ImageSet(pixels, np.zeros(len(pixels), np.int64), 1)
    turned = shifted(images, nobody(), ShiftConfig(name="rotation", angle=180), 0).images
    assert np.array_equal(turned, pixels[:, :, ::-1, ::-1])
    noisy = shifted(images, nobody(), ShiftConfig(name="corruption", corruption="noise"), 0).images.astype(int) - pixels
    assert len(np.unique(noisy[::CHUNK].reshape(3, -1), axis=0)) == 3


def test_burn_in_lives_before_the_shift_and_everybody_else_after(make_config: Make, images: ImageSet) -> None:
    config = make_config(ROTATION)
    split = cut(images, config)
    moved = shifted(images, split, config.stream.shift, config.seed)
    assert np.array_equal(moved.take(split.burn_in).images, images.take(split.burn_in).images)
    for name in AFTER:
        before, after = (each.take(getattr(split, name)).images for each in (images, moved))
        assert np.array_equal(after, np.rot90(before, axes=(2, 3)))
    sent = ClientStreams(config, moved, split).batch(2, 3)
    indices = ClientStreams(config, images, split).indices(2, 3)
    assert np.array_equal(sent.images, np.rot90(images.images[indices], axes=(2, 3)))
    assert np.array_equal(moved.labels, images.labels)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("absent", [(0,), (1, 3)])
def test_withheld_classes_come_with_the_stream(
    absent: tuple[int, ...], seed: int, make_config: Make, images: ImageSet
) -> None:
    shift = {"name": "classes", "classes": absent}
    config = make_config({"seed": seed, "data.splits.burn_in": 40, "stream.shift": shift})
    split = cut(images, config, withheld(config.stream.shift, images.classes))
    labels = {name: images.labels[getattr(split, name)] for name in PARTS}
    assert not np.isin(labels["burn_in"], absent).any() and len(labels["burn_in"]) == 40
    assert all(set(absent) <= set(labels[name].tolist()) for name in AFTER)
    everything = np.concatenate([getattr(split, name) for name in PARTS])
    assert sorted(everything) == list(range(len(images)))
    mixture = np.bincount(np.concatenate([labels[name] for name in AFTER]), minlength=4) / 160
    for name in AFTER:  # test, trusted and streams have one mixture
        assert np.abs(np.bincount(labels[name], minlength=4) - mixture * len(labels[name])).max() <= 2.5


def test_seeds_decide_and_every_shift_has_disjoint_parts(make_config: Make, images: ImageSet) -> None:
    config = make_config()
    for absent in ((), (2,)):
        one, same = cut(images, config, absent), cut(images, config, absent)
        assert all(np.array_equal(getattr(one, name), getattr(same, name)) for name in PARTS)
        assert all(not set(getattr(one, a)) & set(getattr(one, b)) for a, b in combinations(PARTS, 2))


def test_no_shift_changes_nothing(make_config: Make, images: ImageSet, tmp_path: Path) -> None:
    config = make_config()
    split = cut(images, config)
    assert config.stream.shift == ShiftConfig() and withheld(config.stream.shift, images.classes) == ()
    assert cached_shift(images, split, config.stream.shift, 0, tmp_path) is images
    golden = {"burn_in": [143, 64, 106], "test": [100, 65, 147], "stream": [84, 53, 57]}
    for name, first in golden.items():  # recorded before there were shifts
        assert getattr(split, name)[:3].tolist() == first


def test_the_cached_shift_is_the_shift_and_is_not_made_twice(
    make_config: Make, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(ROTATION)
    split = cut(images, config)
    expected = shifted(images, split, config.stream.shift, 0)
    first = cached_shift(images, split, config.stream.shift, 0, tmp_path)
    monkeypatch.setattr("fedmd.data.shift.shifted", None)
    second = cached_shift(images, split, config.stream.shift, 0, tmp_path)
    for each in (first, second):
        assert np.array_equal(each.images, expected.images) and isinstance(each.images.base, np.memmap)


@pytest.mark.parametrize("changes", [{}, ROTATION, {"stream.shift": {"name": "classes", "classes": [7, 2]}}])
def test_the_data_is_loaded_with_its_shift(make_config: Make, changes: dict[str, Any]) -> None:
    plain, data = load_federated_data(make_config()), load_federated_data(make_config(changes))
    absent = [2, 7] if "classes" in changes.get("stream.shift", {}) else []
    assert sorted(set(range(10)) - set(data.images.labels[data.split.burn_in].tolist())) == absent
    batch = data.streams.batch(1, 1)
    original = plain.images.images[data.streams.indices(1, 1)]
    expected = np.rot90(original, axes=(2, 3)) if changes is ROTATION else original
    assert np.array_equal(batch.images, expected)


def test_settings_that_make_no_sense_get_one_sentence(make_config: Make, images: ImageSet) -> None:
    for changes, sentence in (
        ({"stream.shift": {"name": "fog"}}, r"^stream\.shift\.name: 'fog' is not one of none, classes, rotation or"),
        ({"stream.shift": {"name": "classes"}}, r"^stream\.shift\.classes must list the labels that burn-in never"),
        ({"stream.shift": {"severity": 6}}, r"^stream\.shift\.severity: .*less than or equal to 5, not 6\.$"),
        ({**ROTATION, "stream.source": "published_replay"}, r"^stream\.shift\.name must be none for source=publish"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            make_config(changes)
    for classes in ([4], [0, 1, 2, 3]):
        with pytest.raises(ConfigError, match=r"^stream\.shift\.classes: must be some but not all .* 0 to 3"):
            withheld(ShiftConfig(name="classes", classes=classes), 4)
    config = make_config({"data.splits.burn_in": 121})
    with pytest.raises(ConfigError, match=r"^data\.splits\.burn_in: 121 samples are more than the 120 .*classes=\[0\]"):
        cut(images, config, (0,))
