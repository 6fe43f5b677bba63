"""What clients hold in mode=update."""

from collections.abc import Callable

import numpy as np

from fedmd.config import RunConfig
from fedmd.data.clients import LocalData
from fedmd.data.federated import load_federated_data

Make = Callable[..., RunConfig]


def local(make_config: Make, **settings: object) -> LocalData:
    return load_federated_data(make_config({"local": settings})).local


def test_clients_share_the_stream_part_out(make_config: Make) -> None:
    data = load_federated_data(make_config())
    parts = [data.local.indices(client) for client in range(5)]
    assert sorted(np.concatenate(parts)) == sorted(data.split.stream)
    assert np.array_equal(data.local.of(2).images, data.images.images[parts[2]])


def test_a_cap_keeps_a_fixed_choice_of_them(make_config: Make) -> None:
    everything, capped = local(make_config), local(make_config, samples=30)
    for client in range(5):
        chosen = capped.indices(client)
        assert len(chosen) == 30 == len(set(chosen)) and set(chosen) < set(everything.indices(client))
        assert np.array_equal(chosen, capped.indices(client))
    assert np.array_equal(local(make_config, samples=10**6).indices(0), everything.indices(0))
