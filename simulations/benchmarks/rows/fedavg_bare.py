"""The FedAvg workload as a bare PyTorch loop of two threads; the last line is the seconds of a round.

The same clients, batches, steps, mean and evaluation as `fedavg_fedmd`, and nothing else: no messages, no checks, no
record.
"""

import gzip
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

PLACE = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
CLIENTS, SAMPLED, SAMPLES, BATCH, RATE, ROUNDS, TEST, EVALUATE_EVERY = 100, 10, 60, 32, 0.05, 50, 1000, 10


def images_and_labels() -> tuple[Tensor, Tensor]:
    """The training part, images in [0, 1]."""
    pixels = np.frombuffer(unpacked("train-images-idx3-ubyte.gz"), np.uint8, offset=16)
    labels = np.frombuffer(unpacked("train-labels-idx1-ubyte.gz"), np.uint8, offset=8)
    n = CLIENTS * SAMPLES + TEST
    x = torch.from_numpy(pixels.reshape(-1, 1, 28, 28)[:n].copy()).float().div_(255)
    return x, torch.from_numpy(labels[:n].astype(np.int64))


def unpacked(name: str) -> bytes:
    return gzip.decompress((PLACE / name).read_bytes())


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for chosen in torch.randperm(len(x)).split(BATCH):
        optimizer.zero_grad()
        cross_entropy(model((x[chosen] - 0.1307) / 0.3081), y[chosen]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    model.eval()
    right = sum(
        (model((x[part] - 0.1307) / 0.3081).argmax(1) == y[part]).sum() for part in torch.arange(len(x)).split(500)
    )
    model.train()
    return float(right) / len(x)


def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(0)
    x, y = images_and_labels()
    worlds = [slice(client * SAMPLES, (client + 1) * SAMPLES) for client in range(CLIENTS)]
    model, local = net(), net()
    randomness = np.random.default_rng(0)
    seconds = []
    for round in range(ROUNDS):
        began = time.perf_counter()
        start = model.state_dict()
        mean = {name: torch.zeros_like(value) for name, value in start.items()}
        for client in randomness.choice(CLIENTS, SAMPLED, replace=False):
            local.load_state_dict(start)
            train(local, x[worlds[client]], y[worlds[client]])
            for name, value in local.state_dict().items():
                mean[name] += value / SAMPLED
        model.load_state_dict(mean)
        if (round + 1) % EVALUATE_EVERY == 0:
            print(f"round {round + 1}: {accuracy(model, x[-TEST:], y[-TEST:]):.3f}", file=sys.stderr)
        seconds.append(time.perf_counter() - began)
    print(sum(seconds[1:]) / (ROUNDS - 1))
    print(median(seconds), file=sys.stderr)


if __name__ == "__main__":
    main()
