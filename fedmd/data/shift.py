"""A shift between burn-in and the stream, so that online learning has something to learn.

Burn-in lies before the shift. Everything else lies after it: the clients' streams, the test set (it measures what the
stream shows), the server's trusted set and the attackers' own data. So trusted, test and stream samples
stay exchangeable; a server that only has trusted data from before the shift is a harder case than this one.

classes: some classes never occur in burn-in. Images stay as they are, `split` draws burn-in from the other classes.
rotation: by one angle, counter-clockwise, bilinear, black where nothing was.
corruption: noise, blur or contrast of CIFAR-10-C (Hendrycks & Dietterich, ICLR 2019, arXiv 1903.12261) at its five
severities; we round to the nearest level where its code truncates.
"""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedmd.config import ConfigError, ShiftConfig
from fedmd.data.cache import cached_arrays
from fedmd.data.split import Split
from fedmd.seeding import numpy_generator
from fedmd.storage import digest
from fedmd.types import ImageSet

Pixels = NDArray[np.uint8]
Change = Callable[[Pixels], Pixels]

NOISE_STD = (0.04, 0.06, 0.08, 0.09, 0.10)  # of pixels in [0, 1]
BLUR_STD_PIXELS = (0.4, 0.6, 0.7, 0.8, 1.0)
CONTRAST_KEPT = (0.75, 0.5, 0.4, 0.3, 0.15)  # of each pixel's distance to its channel's mean
CHUNK = 1000  # images at a time


def withheld(config: ShiftConfig, classes: int) -> tuple[int, ...]:
    """The labels that burn-in must not see, sorted; none unless name=classes.

    Raises:
        ConfigError: not labels of the data, or no class left to burn-in.
    """
    if config.name != "classes":
        return ()
    labels = tuple(sorted(set(config.classes or ())))
    if labels[-1] >= classes or len(labels) >= classes:
        raise ConfigError(
            f"stream.shift.classes: must be some but not all of the labels 0 to {classes - 1}, not {list(labels)}."
        )
    return labels


def shifted(images: ImageSet, split: Split, config: ShiftConfig, seed: int) -> ImageSet:
    """The image set with all images but those of `split.burn_in` shifted.

    The same set, untouched, for name=none and name=classes. What an image becomes depends on `seed` and on its
    own place in the set alone, not on the part it is in.
    """
    if config.name in ("none", "classes"):
        return images
    change = _change(config, seed)
    moved = np.empty_like(images.images)
    for start in range(0, len(images), CHUNK):
        moved[start : start + CHUNK] = change(images.images[start : start + CHUNK])
    for part in (split.burn_in, *([split.trusted] if config.trusted == "before" else [])):
        moved[part] = images.images[part]
    return ImageSet(moved, images.labels, images.classes)


def cached_shift(images: ImageSet, split: Split, config: ShiftConfig, seed: int, cache_dir: Path) -> ImageSet:
    """`shifted`, kept in `cache_dir` and mapped: the processes of a run share one copy."""
    if config.name in ("none", "classes"):
        return images
    libraries = [version(name) for name in ("numpy", "scipy", "torch", "torchvision")]
    before = (split.burn_in, split.trusted) if config.trusted == "before" else (split.burn_in,)
    identity = digest(images.images, *before, f"{seed} {config.model_dump_json()} {libraries}")
    stored = cached_arrays(
        cache_dir, f"shifted-{identity}", ("images",), lambda: {"images": shifted(images, split, config, seed).images}
    )
    return ImageSet(stored["images"], images.labels, images.classes)


def rotate(images: Pixels, angle: float) -> Pixels:
    """`images` [n, C, H, W] turned by `angle` degrees counter-clockwise about their centres."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import rotate as turn

    writable = torch.from_numpy(np.array(images))
    return np.asarray(turn(writable, angle, InterpolationMode.BILINEAR).numpy())


def add_noise(images: Pixels, severity: int, rng: np.random.Generator) -> Pixels:
    """x + n, n ~ N(0, NOISE_STD²) for every pixel and channel."""
    return _levels(images / 255 + rng.normal(scale=NOISE_STD[severity - 1], size=images.shape))


def blur(images: Pixels, severity: int) -> Pixels:
    """Convolution with a Gaussian cut at 4 standard deviations; the border pixels go on outside the image."""
    from scipy.ndimage import gaussian_filter

    std = BLUR_STD_PIXELS[severity - 1]
    return _levels(gaussian_filter(images / 255, sigma=(0, 0, std, std), mode="nearest", truncate=4.0))


def flatten_contrast(images: Pixels, severity: int) -> Pixels:
    """m + c (x − m), m the mean of an image's channel."""
    x = images / 255
    mean = x.mean((2, 3), keepdims=True)
    return _levels(mean + CONTRAST_KEPT[severity - 1] * (x - mean))


def _change(config: ShiftConfig, seed: int) -> Change:
    """What happens to one chunk after the other, in the order of the set."""
    if config.name == "rotation":
        return lambda chunk: rotate(chunk, config.angle)
    rng = numpy_generator(seed, "shift")
    changes: dict[str, Change] = {
        "noise": lambda chunk: add_noise(chunk, config.severity, rng),
        "blur": lambda chunk: blur(chunk, config.severity),
        "contrast": lambda chunk: flatten_contrast(chunk, config.severity),
    }
    return changes[config.corruption]


def _levels(x: NDArray[np.float64]) -> Pixels:
    return np.rint(np.clip(x, 0, 1) * 255).astype(np.uint8)
