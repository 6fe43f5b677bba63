"""A kernel, ours or as published, in a process of its own: python -m simulations.benchmarks.kernels KERNEL SIDE [...]

    accumulative {literal,ours,bf16} COLLUDERS    steering direction and accumulative samples, (2) and (3)
    correction {literal,ours}                     sample correction with 20 of 100 samples above the threshold, (6)
    clean_step {literal,ours}                     an online step on clean traffic, without and with (5) and (6)

ResNet-18 of random weights, batches of 100 random images, 500 to validate. The last line is JSON: CPU `seconds` of
the work (an attacker's, a batch's, a step's), so that the machine's other work does not count, and `bytes` by which it
raised the process's peak memory. Ours keeps the memory that it frees, as a run does.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedmd.attacks.accumulative import craft_accumulative, steering_direction
from fedmd.config import OnlineConfig
from fedmd.defense.discrepancy import memorization_discrepancy
from fedmd.defense.samples.correction import correct
from fedmd.defense.samples.pipeline import Pipeline
from fedmd.models.resnet import ResNet18
from fedmd.training.allocator import keep_freed_memory
from fedmd.training.device import Placement
from fedmd.training.online import make_optimizer, online_step
from simulations.benchmarks import literal

BATCH, VALIDATION = 100, 500
RADIUS, STEPS = 0.2, 2
CORRECTION = {"step_size": 0.02, "radius": 0.2, "max_steps": 10}
Samples = tuple[Tensor, Tensor]


def resnet18(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ResNet18(ResNet18.Params()).build(channels=3, classes=10, image_size=(32, 32))


def samples(count: int, seed: int) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 32, 32, generator=generator), torch.randint(10, (count,), generator=generator)


def accumulative(side: str, colluders: int) -> tuple[Callable[[], object], int]:
    """One attacker of the literal method shares nothing with the others, so that one is enough to be timed."""
    model = resnet18(0).eval()
    trigger, validation = samples(BATCH, 1), samples(VALIDATION, 2)
    own = [samples(BATCH, 3 + number) for number in range(colluders)]
    if side == "literal":
        return lambda: literal.craft_accumulative(
            model, *own[0], literal.steering_direction(model, *trigger, *validation), RADIUS, STEPS
        ), 1
    placement = Placement(dtype=torch.bfloat16 if side == "bf16" else torch.float32)

    def ours() -> None:
        with placement.autocast():
            direction = steering_direction(model, *trigger, *validation)
            for x, y in own:
                craft_accumulative(model, x, y, direction, radius=RADIUS, steps=STEPS)

    return ours, colluders


def correction(side: str) -> tuple[Callable[[], object], int]:
    current, historical = resnet18(0).eval(), resnet18(1).eval()
    x, y = samples(BATCH, 2)
    scores = memorization_discrepancy(historical, current, x)
    threshold = float(scores.sort().values[BATCH - 21 : BATCH - 19].mean())  # 20 are above
    if side == "literal":
        return lambda: literal.correct(historical, current, x, y, threshold=threshold, **CORRECTION), 1
    return lambda: correct(current, historical, x, y, threshold=threshold, **CORRECTION), 1


def clean_step(side: str, steps: int = 5) -> tuple[Callable[[], object], int]:
    placement = Placement()
    model = placement.place(resnet18(0))
    optimizer = make_optimizer(model, OnlineConfig(lr=0.01, momentum=0.9, batchnorm="train"))
    x, y = samples(BATCH, 2)
    x = placement.images(x)
    pipeline = Pipeline.from_config(
        model,
        trusted=(x[:10], y[:10]),
        snapshots=[resnet18(1)],
        threshold={"name": "fixed", "value": 1e9},
        defense={"name": "dsc", "baselines": False},
        history={"name": "snapshot", "epoch": 1},
    )

    def undefended() -> None:
        for _ in range(steps):
            online_step(model, optimizer, x, y, placement=placement)

    def defended() -> None:
        for _ in range(steps):
            screened = pipeline.screen(x, y)
            online_step(model, optimizer, screened.x, screened.y, placement=placement)
            pipeline.observe()

    return (undefended if side == "literal" else defended), steps


def main(kernel: str, side: str, *more: str) -> None:
    if side != "literal":
        keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    work, shares = {"accumulative": accumulative, "correction": correction, "clean_step": clean_step}[kernel](
        side, *map(int, more)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    work()
    seconds = (time.process_time() - started) / shares
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "bytes": 1024 * grown}))


if __name__ == "__main__":
    main(*sys.argv[1:])
