"""Settings of who takes part, how much of their behaviour is put up with, on what machine, and how it is watched."""

import os
import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fedmd.config.base import Count, NonNegative, Positive, Section

_MIB = 2**20
_NODES_PER_CORE = 32  # enough that cores share a round's clients evenly, and few enough to be asked in no time


class FederationConfig(Section):
    """Who takes part. One node may answer for many clients; `nodes` null means one node a client.

    In a simulation null means no more nodes than the machine has use for; results do not depend on their number.

    `batches_per_reply` rounds share one round trip: their clients are the same, and those who subscribe to the model
    see it once. `register_file` names a JSON file that says which node's key may speak for which clients; null lets the
    first node that claims a client have it.
    """

    clients: Count
    clients_per_round: Count | None = None
    nodes: Count | None = None
    round_timeout_s: Positive = 120.0
    batches_per_reply: Annotated[int, Field(ge=1, le=1000)] = 1
    register_file: str | None = None

    @model_validator(mode="after")
    def _sampled_from_clients(self) -> Self:
        if self.clients_per_round is not None and self.clients_per_round > self.clients:
            raise ValueError(f"clients_per_round must be at most federation.clients={self.clients}")
        if self.nodes is not None and self.nodes > self.clients:
            raise ValueError(f"nodes must be at most federation.clients={self.clients}")
        return self

    @property
    def node_count(self) -> int:
        """Number of Flower nodes that answer for the clients."""
        return self.nodes or self.clients

    @property
    def simulated_nodes(self) -> int:
        """How many of them a simulation starts on this machine."""
        return self.nodes or min(self.clients, _NODES_PER_CORE * (os.cpu_count() or 1))

    @property
    def sampled_clients(self) -> int:
        """Clients asked in each round."""
        return self.clients_per_round or self.clients


class RuntimeConfig(Section):
    """The machine.

    Settings outside of `NO_EFFECT_ON_RESULTS` may change results, in the last digits; evaluate_every decides which
    rounds have an accuracy.

    `spread` is what is computed side by side: whole runs (cells), or a round's clients, cell after cell; auto: runs
    where there are several. Runs are spread over processes of this machine, or over Ray's where `engine` is ray, on a
    cluster and on GPUs; clients always over Ray's. `ray_address` is a cluster that is there already (auto, or
    HOST:PORT); null starts one on this machine.

    `updates_in_memory` are bytes: so much of a round's updates stays in memory (mode=update); what comes beyond that
    lies in a file without a name in the run's folder until the round is over, and is read back one update at a time.

    With `overlap`, nodes that do not look at the model are asked for the next round's data while the server learns from
    this one's (mode=stream); those that do look, attackers, are asked as ever.

    `checkpoint_every` rounds are what a killed run loses at most; where one reply has several rounds' batches, that is
    rounded up to whole replies. 0: none is made. A checkpoint holds the model, its momentum and all history keeps.
    """

    NO_EFFECT_ON_RESULTS: ClassVar = frozenset(
        {
            "engine",
            "spread",
            "ray_address",
            "workers",
            "updates_in_memory",
            "overlap",
            "cache_dir",
            "progress",
            "tensorboard",
            "figures",
            "checkpoint_every",
        }
    )

    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["fp32", "bf16"]
    channels_last: bool = True
    threads: Count
    engine: Literal["auto", "inline", "ray"] = "auto"
    spread: Literal["auto", "cells", "clients"] = "auto"
    ray_address: str | None = None
    workers: Count | None = None
    updates_in_memory: Annotated[int, Field(ge=0)] = 2**28
    overlap: bool = False
    client_cpus: Positive = 1
    client_gpus: NonNegative = 0
    evaluate_every: Count = 1
    cache_dir: str | None = None
    progress: bool = True
    tensorboard: bool = False
    figures: bool = False
    checkpoint_every: Annotated[int, Field(ge=0, le=50)] = 1  # deployed nodes remember 64 rounds

    @model_validator(mode="after")
    def _says_what_it_uses(self) -> Self:
        if self.engine == "inline" and self.spread != "auto":
            raise ValueError(f"spread: {self.spread} is for runtime.engine=ray, not for inline")
        if self.engine == "inline" and self.ray_address is not None:
            raise ValueError("ray_address: is for runtime.engine=ray, not for inline")
        if self.ray_address is not None and not re.fullmatch(r"auto|[^\s:/]+:\d{1,5}", self.ray_address):
            raise ValueError("ray_address: must be auto or HOST:PORT")
        return self


class LimitsConfig(Section):
    """Bounds on what clients send; beyond them a message is refused, with the reason on record.

    `max_samples` of one batch (null: stream.batch_size), or that an update claims to come from (null: local.samples,
    or as many as all clients have in a simulation); `max_message_bytes` of array data in one node's reply (null: 64 MiB
    of samples; of updates, what those asked for take); with valid messages of fewer than `min_clients` clients a round
    learns nothing. How long a round waits is federation.round_timeout_s.
    """

    max_samples: Count | None = None
    max_message_bytes: Count | None = None
    min_clients: Count = 1


class AuditConfig(Section):
    """The trail of every message and verdict. A file that grew beyond `rotate_bytes` is followed by a new one.

    `key_file`, an Ed25519 private key in PEM without a password, signs the trail after every round.
    """

    rotate_bytes: Annotated[int, Field(ge=2**16)] = 256 * _MIB
    key_file: str | None = None


class ObservabilityConfig(Section):
    """How a running server can be watched. Nothing here changes a result.

    `prometheus_port` (0: any free one) serves /metrics and /health on `host`; `json_logs` turns every line of the
    server's log into a JSON object.
    """

    prometheus_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    host: str = "127.0.0.1"
    json_logs: bool = False

    @property
    def is_live(self) -> bool:
        """Whether somebody may be watching the server's numbers."""
        return self.prometheus_port is not None
