"""The images that a run in mode=stream shows of its attackers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from fedmd.flower.server.stream_rounds import _strip

from fedmd.config import RunConfig
from fedmd.data.federated import load_federated_data
from fedmd.types import Action, Screened, Verdicts


def test_the_strip_is_of_an_attacker_that_was_judged(make_config: Callable[..., RunConfig]) -> None:
    """Clients 1 and 3 attack. 1 is in quarantine: its message came, and nobody looked at it. Then 3 is out as well."""
    data = load_federated_data(make_config())
    batches = [data.streams.batch(client, 2) for client in range(4)]
    coalition: Any = SimpleNamespace(members=(1, 3))

    def strip(judged: Sequence[int]) -> Any:
        kept = [batch for batch in batches if batch.client in judged]
        x = torch.from_numpy(np.concatenate([batch.images for batch in kept])).float() / 255
        n = len(x)
        verdicts = Verdicts(np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, Action.ACCEPTED), None)
        learned = SimpleNamespace(
            screened=Screened(x, torch.zeros(n), verdicts),
            clients=np.repeat([b.client for b in kept], [len(b.images) for b in kept]),
        )
        result: Any = SimpleNamespace(batches=batches, learned=learned, report=SimpleNamespace(phase="accumulative"))
        return _strip(data, coalition, result)

    found = strip([0, 2, 3])
    assert np.array_equal(found.poisoned, batches[3].images) and np.array_equal(found.corrected, batches[3].images)
    assert strip([0, 2]) is None
    batches[3] = replace(batches[3], images=batches[3].images[:1])  # its stream has ended
    assert all(len(images) == 1 for images in vars(strip([0, 2, 3])).values())
