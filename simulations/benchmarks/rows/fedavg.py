"""FedAvg on FashionMNIST with McMahan's net: a round of ours over a round of a bare PyTorch loop."""

from collections.abc import Iterator
from functools import partial

from simulations.benchmarks.harness import Pair, Row, interleaved, script

WHAT = (
    "FedAvg: 100 clients, 10 a round, 60 FashionMNIST images each, McMahan's CNN, SGD 0.05, batches of 32, 50 rounds; "
    "a round over one of the bare 2-thread loop; "
)


def _pairs(engine: str, count: int) -> Iterator[Pair]:
    def ours() -> float:
        return float(script("simulations.benchmarks.rows.fedavg_fedmd", engine))

    def bare() -> float:
        return float(script("simulations.benchmarks.rows.fedavg_bare"))

    ours()  # reads the data and burns in, once
    yield from interleaved(ours, bare, count)


ROWS = (
    Row("fedavg_workload", f"{WHAT}inline", "at most", 1.10, 1.03, partial(_pairs, "inline")),
    Row("fedavg_workload_ray", f"{WHAT}ray, two workers", "at most", 1.35, 1.1, partial(_pairs, "ray")),
)
