"""A client's stream is a pure walk through its own partition; in mode=update it holds that partition."""

import random
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmd.config import ConfigError, RunConfig
from fedmd.data.clients import ClientStreams, LocalData
from fedmd.data.federated import load_federated_data
from fedmd.data.split import split_images
from fedmd.types import ImageSet

Make = Callable[..., RunConfig]


def streams(config: RunConfig, images: ImageSet) -> ClientStreams:
    return ClientStreams(config, images, split_images(images, config.data.splits, config.seed))


def walk(built: ClientStreams, client: int, rounds: int) -> np.ndarray:
    return np.concatenate([built.indices(client, round) for round in range(rounds)])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch_size=st.integers(1, 40), seed=st.integers(0, 3), client=st.integers(0, 4))
def test_an_epoch_holds_every_own_sample_once_then_comes_a_new_order(
    make_config: Make, images: ImageSet, batch_size: int, seed: int, client: int
) -> None:
    built = streams(make_config({"seed": seed, "stream.batch_size": batch_size}), images)
    own = built.partition(client)
    seen = walk(built, client, rounds=-(-2 * len(own) // batch_size))
    first, second = seen[: len(own)], seen[len(own) : 2 * len(own)]
    assert sorted(first) == sorted(second) == sorted(own)
    assert not np.array_equal(first, second)


def test_clients_never_see_each_others_nor_any_other_parts_images(make_config: Make, images: ImageSet) -> None:
    config = make_config()
    split = split_images(images, config.data.splits, config.seed)
    built = ClientStreams(config, images, split)
    seen = [set(walk(built, client, rounds=9).tolist()) for client in range(5)]
    assert all(not a & b for a, b in combinations(seen, 2))
    assert set().union(*seen) <= set(split.stream.tolist())


def test_the_order_of_asking_changes_nothing(make_config: Make, images: ImageSet) -> None:
    forward, shuffled = (streams(make_config(), images) for _ in range(2))
    wanted = [(client, round) for client in range(5) for round in range(8)]
    expected = {key: forward.batch(*key) for key in wanted}
    random.Random(0).shuffle(wanted)
    for key in wanted:
        batch = shuffled.batch(*key)
        assert (batch.client, batch.round) == key and len(batch) == 4
        assert np.array_equal(batch.images, expected[key].images)
        assert np.array_equal(batch.labels, expected[key].labels)


def test_a_batch_is_the_images_it_names_and_its_own_memory(make_config: Make, images: ImageSet) -> None:
    built = streams(make_config(), images)
    batch, indices = built.batch(1, 3), built.indices(1, 3)
    assert np.array_equal(batch.images, images.images[indices])
    assert np.array_equal(batch.labels, images.labels[indices])
    batch.images[:] = 0
    assert built.batch(1, 3).images.any()


def test_published_replay_sends_the_same_slice_every_round(make_config: Make, images: ImageSet) -> None:
    config = make_config({"stream.source": "published_replay"})
    split = split_images(images, config.data.splits, config.seed)
    built = ClientStreams(config, images, split)
    for round in range(3):
        sent = np.concatenate([built.batch(client, round).images for client in range(5)])
        assert np.array_equal(sent, images.images[split.burn_in[:20]])


def test_published_replay_augments_anew_every_round_and_purely(make_config: Make, images: ImageSet) -> None:
    built = streams(make_config({"stream.source": "published_replay", "data.augment": "crop_flip"}), images)
    one, two, again = (built.batch(2, round).images for round in (1, 2, 1))
    assert np.array_equal(one, again) and not np.array_equal(one, two)
    assert one.dtype == np.uint8 and one.shape == (4, 1, 8, 8)


def test_published_replay_needs_enough_burn_in_images(make_config: Make, images: ImageSet) -> None:
    config = make_config({"stream.source": "published_replay", "stream.batch_size": 13})
    with pytest.raises(ConfigError, match=r"^stream\.batch_size: .* = 65 burn-in images .* is 60\.$"):
        streams(config, images)


def test_what_a_client_sends_over_several_rounds_is_its_batches_in_order(make_config: Make, images: ImageSet) -> None:
    built = streams(make_config(), images)
    sent, indices = built.sent(2, 3), walk(built, 2, 3)
    assert np.array_equal(sent.images, images.images[indices]) and np.array_equal(sent.labels, images.labels[indices])


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
