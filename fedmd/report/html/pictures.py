"""The strip of images as pictures of a page: three rows as they are, two of amplified differences."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedmd.report.figures.examples import FACTOR, amplified_rows, rejected
from fedmd.report.html.content import Picture, Pictures
from fedmd.types import Strip

GAPS = 14  # an image is so many times as wide as the gap to the next


def strip_pictures(strip: Strip) -> Pictures:
    """Clean, poisoned, learned from, and what attack and defence changed, times FACTOR."""
    attack, defence = amplified_rows(strip)
    n, refused = len(strip.clean), int(rejected(strip).sum())
    rows = (
        picture(strip.clean, "Clean", f"{n} images as a malicious client held them"),
        picture(strip.poisoned, "Poisoned", f"The same {n} images as the client sent them"),
        picture(attack, f"Poisoned − clean, ×{FACTOR}", "What the attack changed: grey is nothing"),
        picture(strip.corrected, "Learned from", f"The same {n} images as the server learned from them"),
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
