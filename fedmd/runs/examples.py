"""A few images for the eye: as a malicious client held them, as it sent them, as the server learned from them."""

from collections.abc import Collection
from typing import Any

import numpy as np

from fedmd.data.federated import FederatedData
from fedmd.rounds.records import RoundResult
from fedmd.rounds.stream import JudgedSamples
from fedmd.types import Action, ExampleImages

_IMAGES = 8


def example_images(data: FederatedData, members: Collection[int], result: RoundResult[Any]) -> ExampleImages | None:
    """Those of one of the `members` whose samples were judged in an accumulative round; None where there are none.

    Its own stream has the honest originals. A rejected sample is black.
    """
    judged = result.judged
    if not isinstance(judged, JudgedSamples) or result.report.phase != "accumulative":
        return None
    batch = next((batch for batch in judged.messages if batch.client in members), None)
    if batch is None:
        return None
    clean = data.streams.batch(batch.client, batch.round).images
    kept = judged.verdicts.actions != Action.REJECTED
    learned = np.zeros((len(kept), *batch.images.shape[1:]), np.uint8)
    learned[kept] = np.rint(judged.x.float().cpu().numpy() * 255).astype(np.uint8)
    mine = np.flatnonzero(judged.clients == batch.client)
    shown = min(_IMAGES, len(clean), len(batch.images))  # a member may send fewer or more than its stream has
    return ExampleImages(clean[:shown], batch.images[:shown], learned[mine[:shown]])
