"""Partitions are disjoint, complete, seeded, and made without a network."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmd.config import ConfigError, PartitionConfig
from fedmd.data.partition import Partition, cached_partition, partition

IID = PartitionConfig(name="iid")
LABELS = np.sort(np.arange(600) % 6).astype(np.int64)


def dirichlet(alpha: float) -> PartitionConfig:
    return PartitionConfig(name="dirichlet", alpha=alpha)


def skew(parts: Partition) -> float:
    """Mean total-variation distance between a client's class shares and everybody's."""
    everybody = np.bincount(LABELS) / len(LABELS)
    shares = [np.bincount(LABELS[part], minlength=6) / len(part) for part in parts]
    return float(np.mean([np.abs(share - everybody).sum() / 2 for share in shares]))


@pytest.mark.parametrize("config", [IID, dirichlet(0.3), dirichlet(100.0)])
@pytest.mark.parametrize("clients", [1, 7, 20])
def test_every_sample_has_exactly_one_client(config: PartitionConfig, clients: int) -> None:
    parts = partition(LABELS, clients, config, seed=3)
    assert len(parts) == clients and min(len(part) for part in parts) >= 1
    assert sorted(np.concatenate(parts)) == list(range(len(LABELS)))


@pytest.mark.parametrize("config", [IID, dirichlet(0.5)])
def test_the_seed_decides(config: PartitionConfig) -> None:
    one, same, other = (partition(LABELS, 5, config, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(np.sort(a), np.sort(b)) for a, b in zip(one, other, strict=True))


def test_iid_is_a_random_even_split_also_of_sorted_data() -> None:
    parts = partition(LABELS, 6, IID, seed=0)
    assert [len(part) for part in parts] == [100] * 6
    assert skew(parts) < 0.15


def test_a_smaller_alpha_is_more_skewed() -> None:
    even, uneven = (partition(LABELS, 6, dirichlet(alpha), seed=0) for alpha in (100.0, 0.1))
    assert skew(even) < 0.2 < 0.4 < skew(uneven)


@pytest.mark.parametrize("clients", [1, 7, 600])
def test_iid_is_what_flower_datasets_make_of_it(clients: int) -> None:
    from datasets import Dataset
    from flwr_datasets.partitioner import IidPartitioner

    from fedmd.seeding import numpy_generator

    theirs = IidPartitioner(num_partitions=clients)
    theirs.dataset = Dataset.from_dict({"position": numpy_generator(4, "partition").permutation(600)})
    for client, mine in enumerate(partition(LABELS, clients, IID, seed=4)):
        assert mine.tolist() == theirs.load_partition(client)["position"][:]


def test_a_client_that_is_none_has_no_part() -> None:
    with pytest.raises(IndexError, match="no client 7 of 7"):
        partition(LABELS, 7, IID, seed=0)[7]


# -- more clients than samples ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [IID, dirichlet(0.3), PartitionConfig(name="shards", classes_per_client=2)])
def test_clients_that_outnumber_the_samples_draw_their_own(config: PartitionConfig) -> None:
    parts, same, other = (partition(LABELS, 5000, config, seed, least=7) for seed in (1, 1, 2))
    assert len(parts) == 5000 and {len(part) for part in parts} == {7}
    assert np.array_equal(parts.positions, same.positions) and not np.array_equal(parts.positions, other.positions)
    # 35,000 draws, 600 samples: each of them is somebody's, about 58 times
    counts = np.bincount(parts.positions, minlength=600)
    assert counts.min() > 20 and counts.max() < 110
    assert np.bincount(LABELS[parts.positions]) / 35_000 == pytest.approx(np.full(6, 1 / 6), abs=0.02)


def test_drawn_shares_are_dirichlet_s() -> None:
    """Of balanced classes two draws of one client agree with probability E Σ q_k² = (alpha + 1) / (K alpha + 1)."""
    for alpha in (0.1, 1.0, 50.0):
        parts = partition(LABELS, 40_000, dirichlet(alpha), seed=0, least=2)
        one, two = LABELS[parts.positions.reshape(-1, 2)].T
        assert np.mean(one == two) == pytest.approx((alpha + 1) / (6 * alpha + 1), abs=0.01)


def test_an_alpha_too_small_for_floating_point_leaves_every_client_one_class() -> None:
    parts = partition(LABELS, 1000, dirichlet(1e-6), seed=0, least=5)
    assert all(len(set(LABELS[part])) == 1 for part in parts)
    assert len(set(LABELS[parts.positions])) == 6


def test_drawn_shards_hold_their_classes() -> None:
    parts = partition(LABELS, 1000, shards(2), seed=0, least=40)
    assert {len(set(LABELS[part].tolist())) for part in parts} == {2}
    with pytest.raises(ConfigError, match=r"^data\.partition\.classes_per_client: must be at most 6"):
        partition(LABELS, 1000, shards(7), seed=0, least=5)


def test_an_alpha_that_starves_a_client_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.partition\.alpha: 0\.001 left a client of 100 without"):
        partition(LABELS, 100, dirichlet(0.001), seed=0)


def test_the_cached_partition_is_the_partition_and_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = partition(LABELS, 4, dirichlet(0.5), seed=9)
    first = cached_partition(LABELS, 4, dirichlet(0.5), 9, tmp_path)
    monkeypatch.setattr("fedmd.data.partition.partition", None)
    second = cached_partition(LABELS, 4, dirichlet(0.5), 9, tmp_path)
    for parts in (first, second):
        assert all(np.array_equal(a, b) for a, b in zip(parts, expected, strict=True))


def test_another_process_agrees_and_opens_no_connection() -> None:
    program = (
        "import socket\n"
        "def refuse(*args): raise SystemExit('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import numpy as np\n"
        "from fedmd.config import PartitionConfig\n"
        "from fedmd.data.partition import partition\n"
        "labels = np.sort(np.arange(600) % 6)\n"
        "config = PartitionConfig(name='dirichlet', alpha=0.5)\n"
        "print(*(part.tolist() for part in partition(labels, 3, config, seed=5)), sep='\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    expected = [str(part.tolist()) for part in partition(LABELS, 3, dirichlet(0.5), seed=5)]
    assert done.stdout.splitlines() == expected


def shards(classes_per_client: int) -> PartitionConfig:
    return PartitionConfig(name="shards", classes_per_client=classes_per_client)


@pytest.mark.parametrize(("clients", "k"), [(1, 6), (3, 2), (4, 2), (4, 5), (6, 1), (7, 1), (20, 2), (20, 3), (5, 6)])
@pytest.mark.parametrize("seed", range(5))
def test_shards_give_every_client_few_classes_and_every_sample_a_client(clients: int, k: int, seed: int) -> None:
    parts = partition(LABELS, clients, shards(k), seed)
    assert len(parts) == clients and sorted(np.concatenate(parts)) == list(range(len(LABELS)))
    held = [set(LABELS[part].tolist()) for part in parts]
    assert all(len(classes) == k for classes in held)
    holders = [sum(label in classes for classes in held) for label in range(6)]
    assert min(holders) >= 1 and max(holders) - min(holders) <= 1
    for label in range(6):  # the holders of a class share it evenly
        counts = [int(np.sum(LABELS[part] == label)) for part in parts]
        shares = [count for count in counts if count]
        assert max(shares) - min(shares) <= 1


def test_the_seed_deals_the_shards() -> None:
    one, same, other = (partition(LABELS, 5, shards(2), seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert [set(LABELS[part]) for part in one] != [set(LABELS[part]) for part in other]


@pytest.mark.parametrize(("clients", "k", "span"), [(2, 2, "3 to 6"), (5, 7, "2 to 6"), (4, 1, "2 to 6")])
def test_shards_that_leave_a_class_to_nobody_are_refused(clients: int, k: int, span: str) -> None:
    sentence = rf"^data\.partition\.classes_per_client: must be {span} for {clients} clients to hold all 6 classes"
    with pytest.raises(ConfigError, match=sentence):
        partition(LABELS, clients, shards(k), seed=0)


def test_shards_that_starve_a_client_are_refused() -> None:
    labels = np.array([0] * 30 + [1], np.int64)
    with pytest.raises(ConfigError, match=r"^data\.partition\.classes_per_client: 1 left a client of 6 without"):
        partition(labels, 6, shards(1), seed=0)


def test_the_name_and_its_setting_go_together() -> None:
    with pytest.raises(ValueError, match="classes_per_client must be a number of classes for name=shards"):
        PartitionConfig(name="shards")
