"""The patch, pixel by pixel, and the attack success rate counted by hand."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmd.attacks.coalition import success_test
from fedmd.attacks.patch import PatchAttack, stamp, triggered
from fedmd.config import AttackConfig, ConfigError, RunConfig
from fedmd.training.evaluate import accuracy
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]
BACKDOOR = {"name": "backdoor", "fraction": 0.4, "patch_size": 2, "target": 1}


def attack(**params: object) -> PatchAttack:
    made: PatchAttack = AttackConfig.model_validate({"name": "backdoor", **params}).make()
    return made


@settings(deadline=None, derandomize=True)
@given(
    shape=st.tuples(st.integers(0, 3), st.sampled_from([1, 3]), st.integers(1, 9), st.integers(1, 9)), data=st.data()
)
def test_exactly_the_bottom_right_square_turns_white(shape: tuple[int, int, int, int], data: st.DataObject) -> None:
    n, channels, height, width = shape
    size = data.draw(st.integers(1, min(height, width)))
    images = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    before, stamped = images.copy(), stamp(images, size)
    assert np.array_equal(images, before) and stamped.dtype == np.uint8
    for i, c, row, column in np.ndindex(n, channels, height, width):
        inside = row >= height - size and column >= width - size
        assert stamped[i, c, row, column] == (255 if inside else before[i, c, row, column])


@pytest.mark.parametrize("size", [0, -1, 5])
def test_a_patch_is_within_the_image(size: int) -> None:
    with pytest.raises(ValueError, match="between 1 and 4"):
        stamp(np.zeros((1, 1, 4, 6), np.uint8), size)


class SeesTheCorner(nn.Module):
    """Class 2 where the corner is white and the first pixel is dark, else class 0."""

    def forward(self, x: Tensor) -> Tensor:
        fooled = (x[:, 0, -1, -1] == 1) & (x[:, 0, 0, 0] < 0.5)
        return nn.functional.one_hot(torch.where(fooled, 2, 0), 3).float()


def test_attack_success_is_the_share_of_other_classes_taken_for_the_target() -> None:
    images = np.zeros((5, 1, 4, 4), np.uint8)
    images[[1, 4], 0, 0, 0] = 255  # these two are not fooled
    labels = np.array([0, 1, 2, 1, 2])  # two are of the target's own class, one of them not fooled
    stamped = triggered(ImageSet(images, labels, 3), 1, 2)
    assert len(stamped) == 3 and set(stamped.labels.tolist()) == {2}
    assert accuracy(SeesTheCorner(), *stamped.tensors()) == 2 / 3
    clean = ImageSet(images, labels, 3).take(np.array([0, 1, 3]))
    assert not (SeesTheCorner()(clean.tensors()[0]).argmax(1) == 2).any()  # the patch does it


def test_success_is_measured_where_somebody_plants_a_backdoor(make_config: Make, images: ImageSet) -> None:
    planted = success_test(make_config({"attack": BACKDOOR}), images)
    assert planted is not None and len(planted) == 140  # 60 of the 200 images are of class 1
    nobody = ({"name": "none"}, {**BACKDOOR, "fraction": 0.0}, {**BACKDOOR, "fraction": 0.05}, {"name": "label_flip"})
    for attack in nobody:
        assert success_test(make_config({"attack": attack}), images) is None
    only_the_target = images.take(np.flatnonzero(images.labels == 1))
    assert success_test(make_config({"attack": BACKDOOR}), only_the_target) is None


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 5), (0.25, 2), (0.26, 3), (1.0, 10)])
def test_how_many_are_stamped(share: float, count: int) -> None:
    assert attack(poisoned_share=share).poisoned_samples(10) == count


def test_a_backdoor_fits_the_data(images: ImageSet) -> None:
    attack(target=3, patch_size=8).check(images)
    with pytest.raises(ConfigError, match=r"^attack\.target: must be a class of the data, 0 to 3, not 4\.$"):
        attack(target=4).check(images)
    with pytest.raises(ConfigError, match=r"^attack\.patch_size: must be at most 8, .* not 9\.$"):
        attack(patch_size=9).check(images)
