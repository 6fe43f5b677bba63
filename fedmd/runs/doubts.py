"""What makes a run's numbers worth less than they look: one sentence each, for the terminal and the report."""

import math

import numpy as np
from numpy.typing import NDArray

from fedmd.attacks.base import attack_of
from fedmd.attacks.schedule import malicious_clients
from fedmd.data.federated import FederatedData
from fedmd.types import Json


def of_the_settings(data: FederatedData) -> list[str]:
    """What is known before the run begins."""
    config, images, found = data.config, data.images, []
    clients, fraction = config.federation.clients, config.attack.fraction
    if fraction > 0 and attack_of(config).phases and not malicious_clients(clients, fraction, config.seed):
        found.append(
            f"attack.fraction={fraction:g} of {clients} clients rounds to no attacker, so nobody attacks; one is "
            f"attack.fraction={1 / clients:.2g}"
        )
    there = np.unique(images.labels)
    if len(there) < 2:
        found.append("the data has fewer than two classes, so every model is right")
    elif len(missing := sorted({*range(images.classes)} - set(there.tolist()))):
        named = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        found.append(f"the labels have gaps: no sample is of class {named}, yet the model has {images.classes} outputs")
    if data.streams.outnumber_images:
        found.append(
            f"federation.clients: {clients} clients outnumber the {len(data.split.stream)} images of the streams and "
            "have some in common: each draws its own, with replacement"
        )
    return found


def of_the_results(summary: Json, test_labels: NDArray[np.int64], thresholds: list[float | None] | None) -> list[str]:
    """What is known once it is over.

    Args:
        summary: of the run.
        test_labels: of the test set: whoever always says the commonest is right by chance.
        thresholds: of each round, None for one above which nothing is suspicious; None where the defence has no use
            for a threshold.
    """
    found = []
    burn_in, chance = summary["accuracy"]["burn_in"], chance_level(test_labels)
    if burn_in is not None and burn_in <= chance:
        found.append(
            f"burn-in ends at {100 * burn_in:.1f} %, no better than chance ({100 * chance:.1f} %): raise "
            "training.burn_in.epochs or data.splits.burn_in"
        )
    if thresholds and all(threshold is None for threshold in thresholds):
        found.append(
            "the threshold is none in every round, so nothing was suspicious: data.splits.trusted is too small for "
            "threshold.fpr, or the model has diverged"
        )
    auroc = summary["detection"]["detector"]["sample"]["auroc"]
    if auroc is not None and auroc < 0.5 and summary["scores"]["judges"]:
        flagged = summary["detection"]["flagged"]
        found.append(
            f"the defence's score ranks most poison below what is clean (AUROC {auroc:.2f}); it flags "
            f"{100 * flagged['tpr']:.0f} % of the poison and {100 * flagged['fpr']:.0f} % of the rest"
        )
    return found


def chance_level(labels: NDArray[np.int64]) -> float:
    """The share of the commonest of `labels` [n], and two standard deviations of what luck adds."""
    if not len(labels):
        return 0.0
    share = float(np.bincount(labels).max()) / len(labels)
    return share + 2 * math.sqrt(share * (1 - share) / len(labels))
