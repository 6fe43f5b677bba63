"""Crops and flips: shapes, seeds, and a naive reference."""

import pytest
import torch
from torch.nn.functional import pad

from fedmd.data.augment import augment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(image: torch.Tensor, flips: bool) -> list[torch.Tensor]:
    """Every crop of the padded image [C, H, W], mirrored ones included where allowed."""
    padded, (_, height, width) = pad(image, (4, 4, 4, 4)), image.shape
    crops = [padded[:, top : top + height, left : left + width] for top in range(9) for left in range(9)]
    return crops + [crop.flip(2) for crop in crops] if flips else crops


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
def test_every_image_is_one_of_its_own_windows(kind: str, dtype: torch.dtype) -> None:
    images = torch.randint(1, 256, (40, 3, 6, 7), generator=seeded()).to(dtype)
    before = images.clone()
    out = augment(images, kind, seeded(1))
    assert out.dtype == dtype and out.shape == images.shape and torch.equal(images, before)
    chosen = []
    for image, result in zip(images, out, strict=True):
        matches = [i for i, w in enumerate(windows(image, kind == "crop_flip")) if torch.equal(w, result)]
        assert matches
        chosen.append(matches[0])
    assert len(set(chosen)) > 20
    assert any(i >= 81 for i in chosen) == (kind == "crop_flip")


def test_the_generator_decides() -> None:
    images = torch.rand(16, 1, 8, 8, generator=seeded())
    one, same, other = (augment(images, "crop_flip", seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_none_is_an_equal_copy() -> None:
    images = torch.rand(2, 1, 4, 4)
    out = augment(images, "none", seeded())
    assert torch.equal(out, images) and out.data_ptr() != images.data_ptr()


def test_an_empty_batch_stays_empty() -> None:
    assert augment(torch.zeros(0, 3, 8, 8), "crop", seeded()).shape == (0, 3, 8, 8)
