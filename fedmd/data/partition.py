"""How the stream part is spread over the clients: by flwr-datasets' DirichletPartitioner, evenly, or by classes.

What flwr-datasets does not do as it is wanted here: its IidPartitioner takes a call and a copy for each client (an even
cut of a shuffled order is the same partition), PathologicalPartitioner leaves out the samples of classes that no client
drew (always some with fewer clients than classes), and ShardPartitioner lets a shard reach into the next class.

Where clients outnumber the samples, each of them draws its own, see `drawn_partition`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, PartitionConfig
from fedmd.data.cache import cached_arrays
from fedmd.data.drawn_partition import assign_classes, drawn_partition
from fedmd.seeding import numpy_generator, seed_for
from fedmd.storage import digest

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Each client's positions, in two arrays however many clients there are: theirs end to end, and where each ends."""

    positions: Indices
    ends: Indices

    @classmethod
    def of(cls, parts: Sequence[Indices]) -> "Partition":
        """From one array a client."""
        return cls(np.concatenate(parts), np.cumsum([len(part) for part in parts]))

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, client: int) -> Indices:
        if not 0 <= client < len(self):
            raise IndexError(f"there is no client {client} of {len(self)}")
        return self.positions[self.ends[client - 1] if client else 0 : self.ends[client]]


def partition(labels: Indices, clients: int, config: PartitionConfig, seed: int, least: int = 1) -> Partition:
    """Positions in `labels` [N] for each client: disjoint, together everything, none empty.

    With more clients than samples they are drawn with replacement, `least` for each client. Samples are shuffled first:
    an even cut makes consecutive shards, and DirichletPartitioner shares every class out front to back. Nothing is
    downloaded or reported: only `FederatedDataset` does that.

    Raises:
        ConfigError: a client would get no sample, or a class no client.
    """
    if clients > len(labels):
        drawn = drawn_partition(labels, clients, config, seed, least)
        return Partition(drawn.reshape(-1), np.arange(1, clients + 1) * least)
    if config.name == "shards":
        return Partition.of(_shards(labels, clients, config.classes_per_client or 1, seed))
    order = numpy_generator(seed, "partition").permutation(len(labels))
    if config.name == "iid":
        return Partition.of(np.array_split(order, clients))
    return Partition.of(_dirichlet(labels, order, clients, config, seed))


def cached_partition(
    labels: Indices, clients: int, config: PartitionConfig, seed: int, cache_dir: Path, least: int = 1
) -> Partition:
    """`partition`, kept in `cache_dir`: importing flwr-datasets costs a process 1 to 3 s and 200 MB."""

    def build() -> dict[str, Indices]:
        parts = partition(labels, clients, config, seed, least)
        return {"positions": parts.positions, "ends": parts.ends}

    drawn = f" {least} each" if clients > len(labels) else ""
    identity = digest(labels, f"{clients} {seed} {config.model_dump_json()}{drawn}", version("flwr-datasets"))
    return Partition(**cached_arrays(cache_dir, f"partition-{identity}", ("positions", "ends"), build))


def _dirichlet(labels: Indices, order: Indices, clients: int, config: PartitionConfig, seed: int) -> list[Indices]:
    from datasets import Dataset
    from flwr_datasets.partitioner import DirichletPartitioner

    partitioner = DirichletPartitioner(
        num_partitions=clients,
        partition_by="label",
        alpha=config.alpha or 1.0,
        min_partition_size=1,
        seed=seed_for(seed, "dirichlet"),
    )
    partitioner.dataset = Dataset.from_dict({"position": order, "label": labels[order]})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces each new draw
            shards = [partitioner.load_partition(client) for client in range(clients)]
    except ValueError as error:
        raise ConfigError(
            f"data.partition.alpha: {config.alpha} left a client of {clients} without samples in every draw; "
            "choose a larger value or fewer clients."
        ) from error
    return [np.asarray(shard.with_format("numpy")["position"][:], dtype=np.int64) for shard in shards]


def _shards(labels: Indices, clients: int, classes_per_client: int, seed: int) -> list[Indices]:
    """Each client holds `classes_per_client` classes; the holders of a class share its samples evenly.

    The "pathological" partition of McMahan et al. (AISTATS 2017, arXiv 1602.05629, section 3), by classes as in
    Li et al. (ICDE 2022, arXiv 2102.02079): every class has as many holders as any other, give or take one.
    """
    classes = np.unique(labels)
    if classes_per_client > len(classes) or clients * classes_per_client < len(classes):
        raise ConfigError(
            f"data.partition.classes_per_client: must be {-(-len(classes) // clients)} to {len(classes)} for {clients} "
            f"clients to hold all {len(classes)} classes of the streams, not {classes_per_client}."
        )
    rng = numpy_generator(seed, "shards")
    held = assign_classes(classes, clients, classes_per_client, rng)
    parts: list[list[Indices]] = [[] for _ in range(clients)]
    for label in classes:
        holders = rng.permutation([client for client, own in enumerate(held) if label in own])
        members = rng.permutation(np.flatnonzero(labels == label))
        for holder, share in zip(holders, np.array_split(members, len(holders)), strict=True):
            parts[holder].append(share)
    joined = [np.concatenate(shares) for shares in parts]
    if min(len(part) for part in joined) == 0:
        raise ConfigError(
            f"data.partition.classes_per_client: {classes_per_client} left a client of {clients} without samples; "
            "choose a larger value or fewer clients."
        )
    return joined
