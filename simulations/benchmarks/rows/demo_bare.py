"""The demo's rounds as a bare loop of one thread; the last line is the seconds of a round.

The same burn-in, batches, crafting, screening, steps and tests as `demo_fedmd`, by fedmd's kernels, and nothing else:
no Flower, no messages, no checks, no audit trail, no record.
"""

import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from fedmd import Pipeline, craft_accumulative, craft_trigger, steering_direction
from fedmd.attacks.base import attack_of
from fedmd.attacks.coalition import members_of
from fedmd.attacks.pixels import quantised
from fedmd.attacks.schedule import phase_of, planned_trigger_round
from fedmd.models import model_for
from fedmd.rounds.loop import is_evaluated
from fedmd.training.evaluate import accuracy
from fedmd.training.online import make_optimizer, online_step
from fedmd.training.setup import set_up
from fedmd.types import ImageSet, StreamBatch
from simulations.benchmarks.rows.demo_fedmd import config


def main() -> None:
    run = config()
    setup = set_up(run)
    data, size = setup.data, run.stream.batch_size
    clients, members = range(run.federation.clients), members_of(run, attack_of(run))
    x_test, y_test = data.images.take(data.split.test).tensors(setup.placement.device)
    x_trusted, y_trusted = data.images.take(data.split.trusted).tensors(setup.placement.device)
    x_own, y_own = data.images.take(data.split.attacker).tensors(setup.placement.device)
    x_trusted, x_test = setup.placement.images(x_trusted), setup.placement.images(x_test)

    def with_statistics(state: Mapping[str, Tensor]) -> nn.Module:
        net = model_for(run.model, data.images, run.seed)
        net.load_state_dict(state)
        setup.placement.place(net)
        update_bn([x_trusted], net)
        return net

    net = with_statistics(setup.trained.final)
    pipeline = Pipeline.from_config(
        net,
        trusted=(x_trusted, y_trusted),
        snapshots=[with_statistics(snapshot) for snapshot in setup.trained.snapshots],
        defense=run.defense,
        threshold=run.threshold,
        history=run.history,
    )
    optimizer = make_optimizer(net, run.training.online)
    planned = [data.streams.batch(client, planned_trigger_round(run.stream)) for client in members]
    x_tri, y_tri = _images(planned, data.images.classes)
    trigger, seconds = None, []
    for round in range(run.stream.rounds):
        began = time.perf_counter()
        phase = phase_of(run.stream, round)
        batches = [data.streams.batch(client, round) for client in clients]
        x, y = _images(batches, data.images.classes)
        if phase in ("accumulative", "trigger") and trigger is None:
            trigger = craft_trigger(net, x_tri, y_tri, x_own, y_own, radius=0.3, steps=2)
        if phase == "accumulative":
            direction = steering_direction(net, trigger, y_tri, x_own, y_own)
            for member in members:
                mine = slice(member * size, (member + 1) * size)
                crafted = craft_accumulative(net, x[mine], y[mine], direction, radius=0.3, steps=2)
                pixels = quantised(crafted, batches[member].images, 0.3)
                x[mine] = torch.from_numpy(pixels).float().div_(255)
        elif phase == "trigger":
            for place, member in enumerate(members):
                x[member * size : (member + 1) * size] = trigger[place * size : (place + 1) * size]
        screened = pipeline.screen(setup.placement.images(x), y, torch.arange(len(clients)).repeat_interleave(size))
        online_step(net, optimizer, screened.x, screened.y, clip_norm=pipeline.defense.clip_norm)
        update_bn([x_trusted], net)
        pipeline.observe()
        if is_evaluated(run, round):
            print(f"round {round}: {accuracy(net, x_test, y_test):.3f}", file=sys.stderr)
        seconds.append(time.perf_counter() - began)
    print(sum(seconds[1:]) / (len(seconds) - 1))


def _images(batches: Sequence[StreamBatch], classes: int) -> tuple[Tensor, Tensor]:
    images, labels = zip(*((batch.images, batch.labels) for batch in batches), strict=True)
    return ImageSet(np.concatenate(images), np.concatenate(labels), classes).tensors(torch.device("cpu"))


if __name__ == "__main__":
    main()
