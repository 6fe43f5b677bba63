"""An ordinary client. Client 0 sends ten times the opposite of what it learned, to give the server something to do."""

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from screened.task import digits, net, train

app = ClientApp()


@app.train()
def learn(message: Message, context: Context) -> Message:
    """One epoch on this node's share of the digits."""
    place, nodes = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    x, y = digits(np.arange(700, 1797)[place::nodes])
    torch.manual_seed(place)
    model, start = net(), message.content["arrays"].to_torch_state_dict()
    model.load_state_dict(start)
    train(model, x, y, epochs=1)
    learned = model.state_dict()
    if place == 0:
        learned = {name: start[name] - 10 * (tensor - start[name]) for name, tensor in learned.items()}
    metrics = MetricRecord({"num-examples": len(y)})
    return Message(RecordDict({"arrays": ArrayRecord(learned), "metrics": metrics}), reply_to=message)
