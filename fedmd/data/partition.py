"""How the stream part is spread over the clients, by flwr-datasets' partitioners.

Except shards: flwr-datasets' PathologicalPartitioner leaves out the samples of classes that no client drew (always
some with fewer clients than classes), and its ShardPartitioner lets a shard reach into the next class.
"""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, PartitionConfig
from fedmd.data.cache import cached_arrays
from fedmd.seeding import numpy_generator, seed_for
from fedmd.storage import digest

Indices = NDArray[np.int64]


def partition(labels: Indices, clients: int, config: PartitionConfig, seed: int) -> list[Indices]:
    """One array of positions in `labels` [N] per client: disjoint, together everything, none empty.

    Samples are shuffled first: IidPartitioner cuts consecutive shards, and DirichletPartitioner shares
    every class out front to back. Nothing is downloaded or reported: only `FederatedDataset` does that.

    Raises:
        ConfigError: a client would get no sample, or a class no client.
    """
    if clients > len(labels):
        raise ConfigError(
            f"federation.clients: {clients} clients cannot share the {len(labels)} samples that data.splits "
            "leaves to the streams."
        )
    if config.name == "shards":
        return _shards(labels, clients, config.classes_per_client or 1, seed)
    from datasets import Dataset

    order = numpy_generator(seed, "partition").permutation(len(labels))
    partitioner = _partitioner(clients, config, seed)
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


def cached_partition(
    labels: Indices, clients: int, config: PartitionConfig, seed: int, cache_dir: Path
) -> list[Indices]:
    """`partition`, kept in `cache_dir`: importing flwr-datasets costs a process 1 to 3 s and 200 MB."""

    def build() -> dict[str, Indices]:
        parts = partition(labels, clients, config, seed)
        return {"positions": np.concatenate(parts), "ends": np.cumsum([len(part) for part in parts])}

    identity = digest(labels, f"{clients} {seed} {config.model_dump_json()}", version("flwr-datasets"))
    stored = cached_arrays(cache_dir, f"partition-{identity}", ("positions", "ends"), build)
    return np.split(stored["positions"], stored["ends"][:-1])


def _partitioner(clients: int, config: PartitionConfig, seed: int) -> Any:
    from flwr_datasets.partitioner import DirichletPartitioner, IidPartitioner

    if config.name == "iid":
        return IidPartitioner(num_partitions=clients)
    return DirichletPartitioner(
        num_partitions=clients,
        partition_by="label",
        alpha=config.alpha,
        min_partition_size=1,
        seed=seed_for(seed, "dirichlet"),
    )


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
    held = _assign_classes(classes, clients, classes_per_client, rng)
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


def _assign_classes(classes: Indices, clients: int, size: int, rng: np.random.Generator) -> list[list[int]]:
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
