"""The disjoint parts of the data: who may ever see which image."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, SplitConfig
from fedmd.seeding import numpy_generator
from fedmd.types import ImageSet

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Indices into the image set, each in random order; every index is in exactly one part."""

    burn_in: Indices  # offline training, before the stream
    trusted: Indices  # the server's clean set: thresholds and probes
    attacker: Indices  # the coalition's validation data
    test: Indices  # final accuracy; nobody learns, tunes or attacks with it
    stream: Indices  # what the clients share


def split_images(images: ImageSet, config: SplitConfig, seed: int, withheld: tuple[int, ...] = ()) -> Split:
    """Cut `images` into parts of the configured sizes, each with the class shares of the whole set.

    Labels in `withheld` do not occur in the burn-in part, which then has the class shares of the others; the
    other parts share what burn-in leaves and have one mixture, richer in the withheld classes than the set.

    A seeded permutation orders each class; sample r of the n of its class is then placed at (r + u) / n of
    the way, with one uniform u per class, and the parts are consecutive cuts of that order. So a cut of any
    size holds every class in proportion, to within a sample or two. The burn-in part does not depend on the
    sizes of the others.

    Raises:
        ConfigError: the sizes leave nothing to the streams, or there are not enough images for burn-in.
    """
    sizes = config.sizes(len(images))
    if sum(sizes.values()) >= len(images):
        taken = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ConfigError(
            f"data.splits: {taken} take {sum(sizes.values())} of {len(images)} samples and leave none to the streams."
        )
    rng = numpy_generator(seed, "split")
    if withheld:
        open_to_burn_in = np.flatnonzero(~np.isin(images.labels, withheld))
        if sizes["burn_in"] > len(open_to_burn_in):
            raise ConfigError(
                f"data.splits.burn_in: {sizes['burn_in']} samples are more than the {len(open_to_burn_in)} that "
                f"stream.shift.classes={list(withheld)} leaves to burn-in."
            )
        burn_in = open_to_burn_in[_in_proportion(images.labels[open_to_burn_in], rng)][: sizes["burn_in"]]
        left = np.setdiff1d(np.arange(len(images)), burn_in)
        order = np.concatenate([burn_in, left[_in_proportion(images.labels[left], rng)]])
    else:
        order = _in_proportion(images.labels, rng)
    cuts = np.split(order, np.cumsum(list(sizes.values())))
    parts = [rng.permutation(part).astype(np.int64) for part in cuts]
    return Split(**dict(zip(sizes, parts, strict=False)), stream=parts[-1])


def _in_proportion(labels: Indices, rng: np.random.Generator) -> Indices:
    """An order of `labels` [N] in which every stretch holds every class in proportion."""
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
