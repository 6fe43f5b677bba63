"""Where runs are computed: in this process, as whole cells in others, or on Ray as cells or one federation's clients.

It never changes a number. What is chosen, and why, is logged.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from fedmd.attacks.base import attack_of
from fedmd.config import ConfigError, PluginSection, RunConfig, RuntimeConfig
from fedmd.data.federated import federated_data_of
from fedmd.models import model_for
from fedmd.registry import REGISTRIES
from fedmd.runs.cells import cores_each
from fedmd.runs.cluster import can_be_isolated
from fedmd.runs.processes import can_fork
from fedmd.training.device import resolve_device

Where = Literal["here", "cells in processes", "clients on Ray", "cells on Ray"]
IN_WORDS: Mapping[Where, str] = {
    "here": "in this process",
    "cells in processes": "in other processes, runs side by side",
    "clients on Ray": "on Ray, a round's clients side by side",
    "cells on Ray": "on Ray, runs side by side",
}

_START_S: Mapping[Where, float] = {"cells in processes": 2.0, "clients on Ray": 10.0, "cells on Ray": 10.0}
_PROBE = 16  # samples


def choose(configs: Sequence[RunConfig]) -> tuple[Where, str]:
    """Where these runs are computed, and why there. Raises ConfigError where it cannot be as they say."""
    runtime = configs[0].runtime
    if runtime.engine == "inline":
        return "here", "as runtime.engine says"
    alone = next(filter(None, map(_why_alone, configs)), None)
    if runtime.spread == "cells" and alone is not None:
        raise ConfigError(f"runtime.spread: cells is not for these runs, for {alone}.")
    cells = runtime.spread == "cells" or (runtime.spread == "auto" and len(configs) > 1 and alone is None)
    where: Where = "clients on Ray" if not cells else "cells on Ray" if _needs_ray(runtime) else "cells in processes"
    if asked := [key for key, value in _asks_for_others(runtime).items() if value]:
        return where, f"as {' and '.join(asked)} asks for it"
    if (foreign := next(filter(None, map(_only_here, configs)), None)) is not None:
        return "here", f"{foreign} is registered in this process alone"
    if (cores := available_cores()) < 2:
        return "here", "this machine has one core"
    if where != "cells in processes" and not can_be_isolated():
        return "here", "Ray was imported before this run, too late to close it to others"
    sampled = max(config.federation.sampled_clients for config in configs)
    among = min(len(configs), room(runtime)) if cells else min(sampled, int(cores / runtime.client_cpus))
    if among < 2:
        return "here", "there is room for one worker, or work for one"
    seconds = estimated_seconds(configs, _forward_passes if cells else _client_passes)
    whose = "" if cells else "the clients' "
    computing = f"about {seconds:.0f} s of {whose}computing"
    if seconds * (1 - 1 / among) < _START_S[where]:
        return "here", f"{computing} are done before {'others' if cells else 'Ray'} would have started"
    return where, f"{computing} on one core are worth sharing out"


def room(runtime: RuntimeConfig) -> int:
    """How many cells this machine can compute at once; as many as runtime.workers says, whatever it has."""
    return runtime.workers or max(1, int(available_cores() / cores_each(runtime)))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _asks_for_others(runtime: RuntimeConfig) -> dict[str, bool]:
    """What asks for more processes than this one."""
    return {
        "runtime.engine": runtime.engine == "ray",
        "runtime.spread": runtime.spread != "auto",
        "runtime.ray_address": runtime.ray_address is not None,
        "runtime.workers": runtime.workers is not None,
        "runtime.client_gpus": runtime.client_gpus > 0,
    }


def _needs_ray(runtime: RuntimeConfig) -> bool:
    """Whether cells have to do with other machines, or with GPUs, which are Ray's to share out."""
    asked = runtime.engine == "ray" or runtime.ray_address is not None or runtime.client_gpus > 0
    return asked or resolve_device(runtime.device).type == "cuda" or not can_fork()


def _why_alone(config: RunConfig) -> str | None:
    """Why the run cannot be computed beside others; None where it can."""
    if config.observability.prometheus_port is not None:
        return "observability.prometheus_port is one port"
    if config.observability.json_logs:
        return "observability.json_logs is one run's log"
    if (foreign := _only_here(config)) is not None:
        return f"{foreign} is registered in this process alone"
    return None


def _only_here(config: RunConfig) -> str | None:
    """A plug-in of the run that another process would not find."""
    for section in (section for _, section in config if isinstance(section, PluginSection)):
        for kind in (section.section, *section.slots):
            name = section.name if kind == section.section else getattr(section, kind)
            if REGISTRIES[kind].is_only_here(name):
                return f"{kind}={name}"
    return None


def estimated_seconds(configs: Sequence[RunConfig], passes: Callable[[RunConfig], float]) -> float:
    """How long the runs take one after another on one core of this machine, to within a factor of three or so.

    `passes` is how many samples go through the net in a run.
    """
    speeds: dict[str, float] = {}
    total = 0.0
    for config in configs:
        net = config.model.model_dump_json() + config.data.model_dump_json()
        if net not in speeds:
            speeds[net] = _seconds_a_sample(config)
        total += passes(config) * speeds[net]
    return total


def _forward_passes(config: RunConfig) -> float:
    """Samples that go through the net in a run, roughly; a training step counts as three, a defence as ten."""
    epochs, splits, rounds = config.training.burn_in.epochs, _splits(config), config.stream.rounds
    screened = rounds * config.federation.sampled_clients * config.stream.batch_size
    evaluated = rounds / config.runtime.evaluate_every * splits["test"]
    return 3 * epochs * splits["burn_in"] + evaluated + (10 + 3) * screened + _client_passes(config)


def _client_passes(config: RunConfig) -> float:
    """Those of them that go through the nets of clients, who train on them or craft them."""
    clients = config.stream.rounds * config.federation.sampled_clients
    trained = config.local.epochs * (config.local.samples or 500) if config.mode == "update" else 0
    return 3 * clients * trained + attack_of(config).forward_passes(config, _splits(config)["attacker"])


def _splits(config: RunConfig) -> dict[str, int]:
    """Samples of each, where the settings may say shares."""
    return config.data.splits.sizes(len(federated_data_of(config.to_json()).images))


def _seconds_a_sample(config: RunConfig) -> float:
    """Of a forward pass, on one core."""
    images = federated_data_of(config.to_json()).images  # as clients will ask for them
    net = model_for(config.model, images, config.seed).eval()
    probe, _ = images.take(np.arange(_PROBE)).tensors()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            net(probe)  # the first time is another one
            started = time.perf_counter()
            net(probe)
            return (time.perf_counter() - started) / _PROBE
    finally:
        torch.set_num_threads(threads)
