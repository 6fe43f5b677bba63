"""The strip of images as arrays, `strip.npz`, and differences made large enough for the eye."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.types import Strip

STRIP = "strip.npz"  # uint8 arrays clean, poisoned and corrected, [n, C, H, W] each
FACTOR = 5
NO_DIFFERENCE = 128


def write_strip(folder: Path, strip: Strip) -> None:
    """Save the strip's arrays in `folder`, compressed, without pickle."""
    np.savez_compressed(folder / STRIP, clean=strip.clean, poisoned=strip.poisoned, corrected=strip.corrected)


def read_strip(folder: Path) -> Strip | None:
    """The strip saved in `folder`; None when there is none."""
    if not (folder / STRIP).exists():
        return None
    with np.load(folder / STRIP, allow_pickle=False) as arrays:
        return Strip(arrays["clean"], arrays["poisoned"], arrays["corrected"])


def rejected(strip: Strip) -> NDArray[np.bool_]:
    """Which samples [n] the server did not learn from: black where what was sent is not."""
    n = len(strip.poisoned)
    return np.logical_and(strip.poisoned.reshape(n, -1).any(1), ~strip.corrected.reshape(n, -1).any(1))


def amplified(image: NDArray[np.uint8], reference: NDArray[np.uint8], factor: int = FACTOR) -> NDArray[np.uint8]:
    """128 + factor · (image - reference), clipped to [0, 255]: mid-grey where the two are equal."""
    difference = image.astype(np.int64) - reference.astype(np.int64)
    return np.clip(NO_DIFFERENCE + factor * difference, 0, 255).astype(np.uint8)


def amplified_rows(strip: Strip, factor: int = FACTOR) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What the attack changed (poisoned - clean) and what the defence changed (corrected - poisoned), amplified.

    [n, C, H, W] each; a rejected sample has no second difference and is mid-grey there.
    """
    learned = np.where(rejected(strip)[:, None, None, None], strip.poisoned, strip.corrected)
    return amplified(strip.poisoned, strip.clean, factor), amplified(learned, strip.poisoned, factor)
