"""Empty rounds of NODES nodes on Flower's simulation engine, two workers; the seconds of a round, last.

python -m simulations.benchmarks.rows.empty_rounds_flower NODES
"""

import os
import sys
import time

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedmd.runs.federation import quiet_flower

ROUNDS = 5
client, server = ClientApp(), ServerApp()
found: list[float] = []


@client.query()
def nothing(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    count = int(sys.argv[1])
    while len(nodes := list(grid.get_node_ids())) < count:
        time.sleep(0.1)

    def round() -> None:
        replies = list(grid.send_and_receive([Message(RecordDict(), node, "query") for node in nodes]))
        if len(replies) != count or any(reply.has_error() for reply in replies):
            raise RuntimeError(f"{len(replies)} of {count} nodes answered, or not all well")

    round()  # workers start
    began = time.perf_counter()
    for _ in range(ROUNDS):
        round()
    found.append((time.perf_counter() - began) / ROUNDS)


if __name__ == "__main__":
    with quiet_flower():
        run_simulation(
            server,
            client,
            num_supernodes=int(sys.argv[1]),
            backend_config={
                "init_args": {"address": "local", "num_cpus": 2, "logging_level": "error", "log_to_driver": False},
                "client_resources": {"num_cpus": 1, "num_gpus": 0},
            },
        )
    print(found[0])
