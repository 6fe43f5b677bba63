"""A client: ten of its own digits in every round. Client 0 sends noise instead, to give the server something to do."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits

app = ClientApp()


@app.train()
def send(message: Message, context: Context) -> Message:
    """The digits of this node's share that belong to the asked round."""
    round = int(message.content["ask"]["round"])
    place, nodes = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    digits = load_digits()
    mine = np.arange(700, len(digits.target))[place::nodes][10 * round : 10 * round + 10]
    x = (digits.images[mine] / 16).astype(np.float32)[:, None]
    if place == 0:
        x = np.random.default_rng(round).random(x.shape, np.float32)
    return Message(
        RecordDict({"batch": ArrayRecord({"x": Array(x), "y": Array(digits.target[mine])})}), reply_to=message
    )
