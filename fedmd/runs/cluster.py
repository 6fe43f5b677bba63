"""The Ray that a simulation computes on: one of its own that nobody else joins, or a cluster that is there."""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from fedmd.config import ConfigError, RuntimeConfig
from fedmd.runs import stopping

# Before Ray is imported: nothing is reported to anybody's server, and workers without a GPU of their own may see all.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

_ANSWER_S = 5.0
_TOO_LATE = (
    "runtime.engine: Ray was imported in this process before the run, too late to close it to others; start the run in "
    "a process that has not imported Ray, set RAY_AUTH_MODE=token, RAY_AUTH_TOKEN and "
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before that import, or take runtime.engine=inline."
)


def isolate_ray(runtime: RuntimeConfig) -> None:
    """Before Ray is imported: nobody else joins the one that this process starts.

    Ray listens on all interfaces and runs whatever it is sent, unless it is told to stay on loopback (that is what
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 does, on any system) and to ask for a token. A cluster that is there already
    has its own rules. Raises ConfigError where Ray has read the environment already.
    """
    if runtime.ray_address is not None:
        return
    if not can_be_isolated():
        raise ConfigError(_TOO_LATE)
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if "RAY_AUTH_TOKEN_PATH" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def can_be_isolated() -> bool:
    """Whether Ray heeds what it is told: not once it is imported, unless it was told before, or somebody started it."""
    ray = sys.modules.get("ray")
    return ray is None or "RAY_AUTH_MODE" in os.environ or ray.is_initialized()


@contextmanager
def connected(runtime: RuntimeConfig, cores_each: float) -> Iterator[None]:
    """Ray is there: the cluster at runtime.ray_address, or one of this machine's that ends with the block.

    It has `cores_each` cores for each of runtime.workers. Raises ConfigError where there is no such cluster.
    """
    import ray  # slow to import, and not before `isolate_ray`

    if ray.is_initialized():  # by whoever called, who will end it too
        yield
        return
    if runtime.ray_address is None:
        cores = None if runtime.workers is None else max(1, round(runtime.workers * cores_each))
        own = "local"  # without it, Ray would join a cluster that somebody has started on this machine
        ray.init(own, num_cpus=cores, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    else:
        _require_somebody_at(runtime.ray_address)
        try:
            ray.init(address=runtime.ray_address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError) as error:
            told = " ".join(str(error).split())
            raise ConfigError(f"runtime.ray_address: {runtime.ray_address} is not a Ray cluster ({told}).") from error
    stopping.put_back()  # Ray has put a handler of its own, one that aborts the process, in place of ours
    try:
        yield
    finally:
        ray.shutdown()


def _require_somebody_at(address: str) -> None:
    """Raise ConfigError where nobody answers at HOST:PORT; Ray itself would ask for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():  # auto, a path, ray://HOST:PORT of Ray's client: its own business
        return
    try:
        socket.create_connection((host, int(port)), _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"runtime.ray_address: nobody answers at {address} ({error}).") from error


def places(needs: Mapping[str, float]) -> int:
    """How many processes that need so much (CPU, GPU) the cluster's machines have room for, at present."""
    import ray

    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    return sum(min(int(there.get(kind, 0) / amount) for kind, amount in needs.items()) for there in machines)


def require_place(needs: Mapping[str, float], keys: str, what: str) -> None:
    """Raise ConfigError, naming the `keys`, where no machine has room for `what`."""
    if places(needs) == 0:
        told = " and ".join(f"{amount:g} {kind}" for kind, amount in needs.items())
        raise ConfigError(f"{keys}: no machine of the Ray cluster has {told} for {what}.")


def first_line(error: Exception) -> str:
    """Ray's errors tell a story; its first line is enough."""
    return " ".join(f"{type(error).__name__}: {error}".split("\n")[0].split())
