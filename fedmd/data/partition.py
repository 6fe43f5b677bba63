"""How the stream part is spread over the clients, by flwr-datasets' partitioners."""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmd.config import ConfigError, PartitionConfig
from fedmd.data.cache import cached_arrays, digest
from fedmd.seeding import numpy_generator, seed_for

Indices = NDArray[np.int64]


def partition(labels: Indices, clients: int, config: PartitionConfig, seed: int) -> list[Indices]:
    """One array of positions in `labels` [N] per client: disjoint, together everything, none empty.

    Samples are shuffled first: IidPartitioner cuts consecutive shards, and DirichletPartitioner hands out
    every class front to back. Nothing is downloaded or reported: only `FederatedDataset` does that.

    Raises:
        ConfigError: a client would get no sample.
    """
    if clients > len(labels):
        raise ConfigError(
            f"federation.clients: {clients} clients cannot share the {len(labels)} samples that data.splits "
            "leaves to the streams."
        )
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
