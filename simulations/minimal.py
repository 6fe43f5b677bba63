"""The attack and the defence in a plain PyTorch loop, without Flower: python simulations/minimal.py

A small net learns online from a stream of real digits. Its second half is poisoned; the last batch is the trigger.
"""

import copy
import statistics

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from fedmd import Pipeline, craft_accumulative, craft_trigger, steering_direction
from fedmd.training.evaluate import accuracy
from fedmd.training.online import online_step

torch.manual_seed(0)
torch.set_num_threads(1)
digits = load_digits()
order = torch.randperm(len(digits.target))
X = torch.tensor(digits.images / 16, dtype=torch.float32).unsqueeze(1)[order]
Y = torch.tensor(digits.target)[order]
(x_burn, x_own, x_trusted, x_test, x_stream) = X.split([300, 100, 100, 300, 997])
(y_burn, y_own, y_trusted, y_test, y_stream) = Y.split([300, 100, 100, 300, 997])
RADIUS = 0.3
DEFENSES = {"none": {"name": "none"}, "dsc": {"name": "dsc", "step_size": 0.05, "radius": RADIUS}}


def burn_in(seed: int) -> tuple[nn.Module, nn.Module]:
    """An early snapshot and the model at the end of offline training."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, 2, 1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(10):
        online_step(model, optimizer, x_burn, y_burn)
    early = copy.deepcopy(model)
    for _ in range(20):
        online_step(model, optimizer, x_burn, y_burn)
    return early, model


def poisoned(model: nn.Module, x: Tensor, y: Tensor, trigger: Tensor, y_trigger: Tensor) -> Tensor:
    """What a malicious client makes of its batch; it knows the current model."""
    direction = steering_direction(model, trigger, y_trigger, x_own, y_own)
    return craft_accumulative(model, x, y, direction, radius=RADIUS, steps=2)


def learn(defense: str, attacked: bool, seed: int) -> float:
    """Accuracy after the stream."""
    early, model = burn_in(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = list(zip(x_stream.split(50), y_stream.split(50), strict=True))
    x_last, y_last = batches[-1]
    trigger = craft_trigger(model, x_last, y_last, x_own, y_own, radius=RADIUS, steps=2)

    # The defence, from here to the end of the function.
    pipeline = Pipeline.from_config(
        model,
        defense=DEFENSES[defense],
        threshold={"name": "quantile", "fpr": 0.2},
        snapshots=[early],
        trusted=(x_trusted, y_trusted),
    )
    for number, (x, y) in enumerate(batches):
        if attacked and number == len(batches) - 1:
            x = trigger
        elif attacked and number >= len(batches) // 2:
            x = poisoned(model, x, y, trigger, y_last)
        screened = pipeline.screen(x, y)
        online_step(model, optimizer, screened.x, screened.y)
        pipeline.observe()
    return accuracy(model, x_test, y_test)


if __name__ == "__main__":
    for defense in DEFENSES:
        for attacked in (False, True):
            runs = [100 * learn(defense, attacked, seed) for seed in range(5)]
            mean, spread = statistics.mean(runs), statistics.stdev(runs)
            print(f"defence {defense:<5} attacked {attacked!s:<6} accuracy {mean:.1f} % (5 seeds, std {spread:.1f})")
