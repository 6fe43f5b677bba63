"""The five parts are disjoint, complete, balanced and seeded."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmd.config import ConfigError, SplitConfig
from fedmd.data.split import Split, split_images
from fedmd.runs.compose import compose
from fedmd.types import ImageSet

PARTS = ("burn_in", "trusted", "attacker", "test", "stream")


def image_set(labels: np.ndarray) -> ImageSet:
    return ImageSet(np.zeros((len(labels), 1, 1, 1), np.uint8), labels.astype(np.int64), int(labels.max()) + 1)


def parts(result: Split) -> list[np.ndarray]:
    return [getattr(result, name) for name in PARTS]


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=4, max_size=4),
    rest=st.integers(1, 40),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_every_image_is_in_exactly_one_part(sizes: list[int], rest: int, classes: int, seed: int) -> None:
    labels = np.arange(sum(sizes) + rest) ** 2 % classes
    config = SplitConfig(**dict(zip(PARTS, sizes, strict=False)))
    found = parts(split_images(image_set(labels), config, seed))
    assert [len(part) for part in found] == [*sizes, rest]
    assert sorted(np.concatenate(found)) == list(range(len(labels)))


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_parts_hold_every_class_in_proportion(seed: int) -> None:
    labels = np.repeat(np.arange(4), (400, 300, 200, 100))
    result = split_images(image_set(labels), SplitConfig(burn_in=333, trusted=50, attacker=100, test=217), seed)
    for part in parts(result):
        expected = np.array([0.4, 0.3, 0.2, 0.1]) * len(part)
        assert np.abs(np.bincount(labels[part], minlength=4) - expected).max() <= 2.5


def test_seeds_decide_the_parts_and_other_sizes_leave_burn_in_alone() -> None:
    images = image_set(np.arange(100) % 10)
    config = SplitConfig(burn_in=30, trusted=10, attacker=10, test=20)
    one, same, other = (split_images(images, config, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(parts(one), parts(same), strict=True))
    assert not np.array_equal(np.sort(one.test), np.sort(other.test))
    resized = split_images(images, SplitConfig(burn_in=30, trusted=5, attacker=25, test=1), 1)
    assert np.array_equal(resized.burn_in, one.burn_in)


def test_parts_are_in_random_order() -> None:
    result = split_images(image_set(np.arange(1000) % 10), SplitConfig(burn_in=500, trusted=1, attacker=1, test=1), 0)
    assert abs(np.corrcoef(np.arange(500), result.burn_in)[0, 1]) < 0.2


def test_sizes_that_leave_no_stream_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.splits: .* take 40 of 40 samples and leave none"):
        split_images(image_set(np.arange(40) % 2), SplitConfig(burn_in=10, trusted=10, attacker=10, test=10), 0)


def test_a_part_is_a_number_or_a_share() -> None:
    config = SplitConfig(burn_in=0.25, trusted=7, attacker=0.001, test=0.5)
    assert config.sizes(100) == {"burn_in": 25, "trusted": 7, "attacker": 1, "test": 50}
    assert SplitConfig.model_validate_json(config.model_dump_json()) == config
    assert type(SplitConfig(burn_in=20.0, trusted=1, attacker=1, test=1).burn_in) is int
    for wrong in (0, -3, 1.5, "many", True, None):
        with pytest.raises(ConfigError, match=r"^data\.splits\.test: must be a number of samples, or a share of them"):
            compose(["data=digits", f"data.splits.test={'null' if wrong is None else wrong}"])
