"""Empty rounds of NODES nodes on Ray, PAIRS times ours and plain Flower's in turns; the seconds of a round, last.

python -m simulations.benchmarks.rows.empty_rounds_simulation NODES PAIRS
"""

import json
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from fedmd.flower.server.nodes import Nodes
from fedmd.runs.compose import compose
from fedmd.runs.federation import quiet_flower

ROUNDS = 3  # in a pair
client, server = ClientApp(), ServerApp()
found: list[tuple[float, float]] = []


@client.query()
def nothing(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    count, pairs = int(sys.argv[1]), int(sys.argv[2])
    while len(nodes := list(grid.get_node_ids())) < count:
        time.sleep(0.1)
    ours = Nodes(grid, compose(["experiment=smoke"]).config, "")

    def requests() -> dict[int, Message]:
        return {node: Message(RecordDict(), node, "query") for node in nodes}

    def seconds(ask: Callable[[], int]) -> float:
        began = time.perf_counter()
        for _ in range(ROUNDS):
            if (answers := ask()) != count:
                raise RuntimeError(f"{answers} of {count} nodes answered")
        return (time.perf_counter() - began) / ROUNDS

    def by_us() -> int:
        return len(dict(ours.ask(requests())))

    def by_flower() -> int:
        return len(list(grid.send_and_receive(requests().values())))

    by_flower()  # workers start
    for number in range(pairs):
        if number % 2:
            plain = seconds(by_flower)
            found.append((seconds(by_us), plain))
        else:
            mine = seconds(by_us)
            found.append((mine, seconds(by_flower)))


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
    print(json.dumps(found))
