"""Empty rounds of NODES nodes on our grid over Ray, two workers; the seconds of a round, last.

python -m simulations.benchmarks.rows.empty_rounds_fedmd NODES
"""

import sys
import time

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedmd.flower.server.nodes import Nodes
from fedmd.runs.cluster import connected, isolate_ray
from fedmd.runs.compose import compose
from fedmd.runs.inline import server_identity

ROUNDS = 5
client = ClientApp()


@client.query()
def nothing(message: Message, context: Context) -> Message:
    return Message(RecordDict(), reply_to=message)


def main() -> None:
    count = int(sys.argv[1])
    config = compose(["experiment=smoke", "runtime.workers=2"]).config
    isolate_ray(config.runtime)
    with connected(config.runtime, 1), server_identity():
        from fedmd.runs.ray_grid import ray_grid

        with ray_grid(client, config.runtime, count, count, config.federation.round_timeout_s) as grid:
            nodes = Nodes(grid, config, "")

            def round() -> None:
                replies = dict(nodes.ask({node: Message(RecordDict(), node, "query") for node in range(1, count + 1)}))
                if len(replies) != count or any(reply.has_error() for reply in replies.values()):
                    raise RuntimeError(f"{len(replies)} of {count} nodes answered, or not all well")

            round()  # workers start
            began = time.perf_counter()
            for _ in range(ROUNDS):
                round()
            print((time.perf_counter() - began) / ROUNDS)


if __name__ == "__main__":
    main()
