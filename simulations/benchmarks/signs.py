"""What cheaper second derivatives would do to the attack: python -m simulations.benchmarks.signs [--out FILE]

The pixel gradient of eq (3) counts by its signs alone. So: how many signs agree with the exact gradient's where it is
computed in bf16, and where difference quotients of first gradients stand for second derivatives,

    H s ≈ (g(θ + h s) − g(θ)) / h        one-sided, two gradients in place of three; central: three

whose h is given as ‖h s‖ over ‖θ‖. ResNet-18 of random weights on random images, as `kernels` has it, and a small
residual net after three epochs of the packaged MNIST. The last line is JSON: shares of signs that agree, by net.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedmd.attacks.accumulative import accumulative_target, steering_direction
from fedmd.attacks.gradients import LiveGradient, folded, normalised
from fedmd.data.sources.packaged import Mnist5k
from fedmd.models.resnet import SmallResNet
from fedmd.training.device import Placement
from fedmd.types import ImageSet
from simulations.benchmarks.kernels import Samples, resnet18, samples

LENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
Batches = tuple[Samples, Samples, Samples]  # trigger, validation, the attacker's own
Tensors = tuple[Tensor, ...]


def exact(model: nn.Module, trigger: Samples, validation: Samples, own: Samples) -> Tensor:
    """∇_x of (3) at clean samples, as the attack has it."""
    direction = steering_direction(model, *trigger, *validation)
    live = LiveGradient(model, *own, wrt="samples")
    return live.pull(folded(live.value, accumulative_target(live.value, direction)))[0]


def by_differences(model: nn.Module, batches: Batches, length: float, *, central: bool) -> Tensor:
    """The same, of first gradients alone."""
    at = {name: parameter.detach() for name, parameter in model.named_parameters()}
    size = float(torch.cat([p.flatten() for p in at.values()]).norm())

    def gradient(batch: Samples, along: Tensors, h: float, *, by_samples: bool) -> Tensors:
        moved = {name: (p + h * v).requires_grad_() for (name, p), v in zip(at.items(), along, strict=True)}
        x = batch[0].clone().requires_grad_()
        loss = F.cross_entropy(functional_call(model, moved, (x,)), batch[1])
        return torch.autograd.grad(loss, (x,) if by_samples else tuple(moved.values()))

    def quotient(batch: Samples, along: Tensors, *, by_samples: bool) -> Tensors:
        h = length * size / float(torch.cat([v.flatten() for v in along]).norm())
        ahead = gradient(batch, along, h, by_samples=by_samples)
        behind = gradient(batch, along, -h if central else 0.0, by_samples=by_samples)
        return tuple((a - b) / (2 * h if central else h) for a, b in zip(ahead, behind, strict=True))

    of = [LiveGradient(model, *batch).value for batch in batches]
    along_trigger, along_validation = folded(of[0], normalised(of[1])), folded(of[1], normalised(of[0]))
    parts = (
        quotient(batches[0], along_trigger, by_samples=False),
        quotient(batches[1], along_validation, by_samples=False),
    )
    direction = tuple(a + b for a, b in zip(*parts, strict=True))
    target = accumulative_target(of[2], direction)
    return quotient(batches[2], folded(of[2], target), by_samples=True)[0]


def agreement(model: nn.Module, batches: Batches) -> dict[str, float]:
    """Shares of the exact gradient's signs that each cheaper one has; pixels that the model does not see left out."""
    reference = exact(model, *batches).sign()

    def share(other: Tensor) -> float:
        return round(float((other.sign() == reference)[reference != 0].float().mean()), 4)

    with Placement(dtype=torch.bfloat16).autocast():
        shares = {"bf16": share(exact(model, *batches))}
    for kind, central in (("one-sided", False), ("central", True)):
        for length in LENGTHS:
            shares[f"{kind} {length:g}"] = share(by_differences(model, batches, length, central=central))
    return shares


def random_resnet18() -> tuple[nn.Module, Batches]:
    return resnet18(0).eval(), (samples(50, 1), samples(100, 2), samples(50, 3))


def trained_small_resnet() -> tuple[nn.Module, Batches]:
    images, labels = Mnist5k(Mnist5k.Params()).decode(Path())  # nothing is downloaded
    x, y = ImageSet(images, labels, 10).tensors(torch.device("cpu"))
    torch.manual_seed(0)
    model = SmallResNet(SmallResNet.Params(width=8)).build(channels=1, classes=10, image_size=(28, 28))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    order = torch.randperm(len(x))
    for _ in range(3):
        for part in order[:2000].split(100):
            optimizer.zero_grad()
            F.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
    held_out = order[2000:2500].split([100, 300, 100])
    trigger, validation, own = ((x[part], y[part]) for part in held_out)
    return model.eval(), (trigger, validation, own)


NETS: dict[str, Callable[[], tuple[nn.Module, Batches]]] = {
    "resnet18, random": random_resnet18,
    "resnet_small, trained": trained_small_resnet,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    found = {name: agreement(*make()) for name, make in NETS.items()}
    text = json.dumps(found)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
