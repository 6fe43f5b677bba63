"""Features that are no pictures, as pixels: a row of d numbers is an image of one row and d columns.

What a client sends are bytes, so each feature has 256 levels between its least and its greatest value in the whole set.
A radius of 0.3 in an attack or a defence is 0.3 of that range.
"""

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError


def as_pixels(features: NDArray[np.float64], *, key: str, place: str) -> NDArray[np.uint8]:
    """uint8 [N, 1, 1, d] of numbers [N, d]; a feature that never changes is 0.

    Raises ConfigError, which begins with `key` and says `place`, where a number is missing or infinite.
    """
    if not np.isfinite(features).all():
        row, column = np.argwhere(~np.isfinite(features))[0]
        raise ConfigError(f"{key}: row {row} of {place} has no finite number in feature {column}.")
    low, high = features.min(axis=0), features.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    pixels: NDArray[np.uint8] = np.rint((features - low) / span * 255).astype(np.uint8)
    return pixels[:, None, None, :]


def as_labels(labels: NDArray[np.generic], *, key: str, place: str) -> NDArray[np.int64]:
    """int64 [N] of integers >= 0, or of texts, numbered in their order.

    Raises ConfigError for anything else.
    """
    if labels.dtype.kind in "iu" and (not len(labels) or int(labels.min()) >= 0):
        return labels.astype(np.int64)
    if labels.dtype.kind in "UOS" and all(isinstance(label, str) for label in labels.tolist()):
        return np.unique(labels.astype(str), return_inverse=True)[1].astype(np.int64)
    raise ConfigError(f"{key}: labels of {place} must be integers >= 0 or texts, not {labels.dtype}.")
