"""Example images as pictures of a page: three rows as they are, two of differences made large enough for the eye."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmd.report.html.content import Picture, Pictures
from fedmd.types import ExampleImages

GAPS = 14  # an image is so many times as wide as the gap to the next
FACTOR = 5
NO_DIFFERENCE = 128


def example_pictures(examples: ExampleImages) -> Pictures:
    """Clean, poisoned, learned from, and what attack and defence changed, times FACTOR."""
    attack, defence = amplified_rows(examples)
    n, refused = len(examples.clean), int(rejected(examples).sum())
    rows = (
        picture(examples.clean, "Clean", f"{n} images as a malicious client held them"),
        picture(examples.poisoned, "Poisoned", f"The same {n} images as the client sent them"),
        picture(attack, f"Poisoned − clean, ×{FACTOR}", "What the attack changed: grey is nothing"),
        picture(examples.corrected, "Learned from", f"The same {n} images as the server learned from them"),
        picture(defence, f"Learned from − poisoned, ×{FACTOR}", "What the defence changed: grey is nothing"),
    )
    caption = (
        f"A malicious client's samples in its last accumulative round. Differences are multiplied by {FACTOR}; "
        "mid-grey means no difference, brighter more light, darker less."
    )
    if refused:
        caption += f" Black in the row “Learned from”: rejected, {refused} of {n}."
    return Pictures("What attack and defence do to an image", rows, caption)


def picture(images: NDArray[np.uint8], label: str, alt: str) -> Picture:
    """uint8 images [n, 1 or 3, H, W] side by side, as one PNG with transparent gaps."""
    n, _, height, width = images.shape
    gap = max(1, width // GAPS)
    sheet = np.zeros((height, n * (width + gap) - gap, 4), np.uint8)
    for i, image in enumerate(images):
        start = i * (width + gap)
        sheet[:, start : start + width, :3] = image.transpose(1, 2, 0)  # one channel is spread over three
        sheet[:, start : start + width, 3] = 255
    file = io.BytesIO()
    Image.fromarray(sheet, "RGBA").save(file, "PNG", optimize=True)
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    return Picture(label, uri, alt, sheet.shape[1], height)


def rejected(examples: ExampleImages) -> NDArray[np.bool_]:
    """Which samples [n] the server did not learn from: black where what was sent is not."""
    n = len(examples.poisoned)
    return np.logical_and(examples.poisoned.reshape(n, -1).any(1), ~examples.corrected.reshape(n, -1).any(1))


def amplified_rows(examples: ExampleImages) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What the attack changed (poisoned - clean) and what the defence changed (corrected - poisoned), amplified.

    uint8 [n, C, H, W] each; a rejected sample has no second difference and is mid-grey there.
    """
    learned = np.where(rejected(examples)[:, None, None, None], examples.poisoned, examples.corrected)
    return amplified(examples.poisoned, examples.clean), amplified(learned, examples.poisoned)


def amplified(image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """128 + FACTOR · (image - reference), clipped to [0, 255]: mid-grey where the two are equal."""
    difference = image.astype(np.int64) - reference.astype(np.int64)
    return np.clip(NO_DIFFERENCE + FACTOR * difference, 0, 255).astype(np.uint8)
