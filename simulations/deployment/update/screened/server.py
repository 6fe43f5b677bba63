"""A ServerApp of your own that averages what clients learn. Lines (1), (2) and (3) are all of fedmd in it."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from fedmd.flower.strategies.screening import DiscrepancyScreening, UpdateVerdict  # (1)
from screened.task import digits, net, train

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Begin with a model that knows a little, then average."""
    torch.manual_seed(0)
    model = net()
    train(model, *digits(np.arange(300)), epochs=5)
    trusted, (x_test, y_test) = digits(np.arange(300, 500)), digits(np.arange(500, 700))
    strategy: Strategy = FedAvg(fraction_evaluate=0.0)
    strategy = DiscrepancyScreening(strategy, model=model, probe=[trusted], on_verdicts=tell)  # (2) round any strategy

    def evaluate(round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        with torch.no_grad():
            right = float((model(x_test).argmax(1) == y_test).float().mean())
        print(f"round {round}: accuracy {right:.3f}", flush=True)
        return MetricRecord({"accuracy": right})

    arrays = ArrayRecord(model.state_dict())
    strategy.start(grid, arrays, num_rounds=int(context.run_config["rounds"]), evaluate_fn=evaluate)


def tell(round: int, verdicts: tuple[UpdateVerdict, ...]) -> None:  # (3) what became of every update, and why
    """Print the verdicts of a round."""
    for verdict in verdicts:
        print(f"round {round}: node {verdict.node} {verdict.action.name.lower()} {verdict.reason}", flush=True)
