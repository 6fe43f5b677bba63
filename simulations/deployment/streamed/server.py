"""A ServerApp of your own that learns from what clients stream. All of fedmd in it: (1), (2), (3), and imports."""

import copy

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from fedmd.defense.samples.pipeline import Pipeline

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train offline, then one step on what every round brings."""
    torch.manual_seed(0)
    fpr = float(context.run_config["fpr"])
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    model = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(20):
        step(model, optimizer, x[:300], y[:300])
        if epoch == 9:
            early = copy.deepcopy(model)
    pipeline = Pipeline.from_config(  # (1) the server's own 200 trusted digits say what is usual
        model,
        trusted=(x[300:500], y[300:500]),
        snapshots=[early],
        defense={"name": "drop", "detector": "historical_loss", "baselines": False},
        threshold={"name": "quantile", "fpr": fpr},
    )
    for round in range(int(context.run_config["rounds"])):
        asked = RecordDict({"ask": ConfigRecord({"round": round})})
        replies = grid.send_and_receive([Message(asked, node, "train") for node in grid.get_node_ids()], timeout=60)
        batches = [reply.content["batch"] for reply in replies if not reply.has_error()]
        if not batches:
            continue
        x_new = torch.from_numpy(np.concatenate([batch["x"].numpy() for batch in batches]))
        y_new = torch.from_numpy(np.concatenate([batch["y"].numpy() for batch in batches]))
        screened = pipeline.screen(x_new, y_new)  # (2) what to learn from, and a verdict on every sample
        step(model, optimizer, screened.x, screened.y)
        pipeline.observe()  # (3) the model has moved
        with torch.no_grad():
            right = (model(x[500:700]).argmax(1) == y[500:700]).float().mean()
        print(
            f"round {round}: accuracy {right:.3f}, learned from {len(screened.y)} of {len(y_new)} samples", flush=True
        )


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One step of SGD on the mean cross-entropy."""
    if len(y):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
