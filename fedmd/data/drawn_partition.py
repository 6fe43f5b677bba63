"""More clients than samples: every client draws its own, with replacement, and clients have samples in common.

Samples stand for what such clients would hold, as they do where one image is shown to a model in many epochs. All
clients are drawn at once, in time and memory proportional to what they hold.
"""

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, PartitionConfig
from fedmd.seeding import numpy_generator

Indices = NDArray[np.int64]


def drawn_partition(labels: Indices, clients: int, config: PartitionConfig, seed: int, size: int) -> Indices:
    """Positions in `labels` [N] for each client: [clients, size].

    iid: any of them, each as likely. dirichlet: a client's shares of the classes are those of `size` draws from
    shares q_k = g_k n_k / Σ_j g_j n_j, g_k ~ Gamma(alpha) and n_k the size of class k, which is what sharing out each
    class by a symmetric Dirichlet distribution gives a client among many. shards: `classes_per_client` classes in
    equal shares.

    Raises ConfigError where there are fewer classes than a client is to hold.
    """
    rng = numpy_generator(seed, "drawn partition")
    if config.name == "iid":
        return rng.integers(len(labels), size=(clients, size))
    found, sizes = np.unique(labels, return_counts=True)
    if config.name == "dirichlet":
        chosen = _by_shares(_shares(sizes, clients, config.alpha or 1.0, rng), size, rng)
    else:
        k = config.classes_per_client or 1
        if k > len(found):
            raise ConfigError(
                f"data.partition.classes_per_client: must be at most {len(found)}, the classes of the streams, not {k}."
            )
        held = np.array(assign_classes(np.arange(len(found)), clients, k, rng))
        chosen = np.take_along_axis(held, rng.integers(k, size=(clients, size)), axis=1)
    by_class, starts = np.argsort(labels, kind="stable"), np.cumsum(sizes) - sizes
    drawn: Indices = by_class[starts[chosen] + rng.integers(sizes[chosen])]
    return drawn


def _shares(sizes: Indices, clients: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """q [clients, K]."""
    weights = rng.standard_gamma(alpha, (clients, len(sizes))) * sizes
    vanished = np.flatnonzero(weights.sum(axis=1) == 0)  # alpha so small that all underflowed: one class has everything
    weights[vanished, rng.integers(len(sizes), size=len(vanished))] = 1.0
    shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return shares


def _by_shares(shares: NDArray[np.float64], size: int, rng: np.random.Generator) -> Indices:
    """For each client `size` classes, each drawn with its `shares` [clients, K]: [clients, size]."""
    uniform, reached = rng.random((len(shares), size)), np.cumsum(shares, axis=1)
    chosen = np.zeros(uniform.shape, np.int64)
    for upto in reached.T[:-1]:  # class by class: K is small, clients are many
        chosen += uniform > upto[:, None]
    return chosen


def assign_classes(classes: Indices, clients: int, size: int, rng: np.random.Generator) -> list[list[int]]:
    """`size` different classes for each client, taken from one shuffled list of all classes after another."""
    held: list[list[int]] = []
    left: list[int] = []
    for _ in range(clients):
        own, left = left[:size], left[size:]
        if len(own) < size:
            order = [int(label) for label in rng.permutation(classes)]
            more = [label for label in order if label not in own][: size - len(own)]
            own, left = own + more, [label for label in order if label not in more]
        held.append(own)
    return held
