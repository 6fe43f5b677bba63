"""The grid over real Ray actors: what comes of odd clients, and the model by reference."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedmd.config import RuntimeConfig
from fedmd.flower.server.nodes import Nodes
from fedmd.flower.wire.header import HEADER
from fedmd.runs.cluster import connected, isolate_ray
from fedmd.runs.compose import compose
from fedmd.runs.inline import server_identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.xdist_group("clients on Ray")]
TIMEOUT_S = 30.0
CONFIG = compose(["experiment=smoke", f"federation.round_timeout_s={TIMEOUT_S}", "runtime.workers=2"]).config


def odd_clients() -> ClientApp:
    """(Closures: workers get them by value.)"""
    app = ClientApp()

    @app.query("odd")
    def odd(message: Message, context: Context) -> Any:
        match context.node_id:
            case 1:
                return None
            case 2:
                return Message(RecordDict({"x": threading.Lock()}), reply_to=message)  # type: ignore[dict-item]
            case 3:
                reply = Message(RecordDict(), reply_to=message)
                reply.__dict__["lock"] = threading.Lock()  # nothing that can be sent
                return reply
            case 4:
                sys.exit("enough")
            case 5:
                os._exit(0)
            case 6:
                raise KeyError("y")
            case 7:
                time.sleep(1e6)
        return Message(RecordDict({"here": ConfigRecord({"process": os.getpid()})}), reply_to=message)

    @app.query("model")
    def model(message: Message, context: Context) -> Message:
        from fedmd.flower.wire.header import Request
        from fedmd.flower.wire.model_exchange import fetch_state

        name = str(message.content.config_records["fedmd"]["model_file"])
        state = fetch_state(Request("", 0, (), model_file=name))
        places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        ranges = [([int(end, 16) for end in place[0].split("-")], place[-2:]) for place in places]
        weight = state["0.weight"].data_ptr()
        told = ConfigRecord(
            {
                "sum": float(sum(tensor.double().sum() for tensor in state.values())),
                "names": list(state),
                "lies in": " ".join(next(file for (low, high), file in ranges if low <= weight < high)),
            }
        )
        return Message(RecordDict({"told": told}), reply_to=message)

    return app


@pytest.fixture(scope="module")
def grid() -> Iterator[Any]:
    runtime: RuntimeConfig = CONFIG.runtime
    isolate_ray(runtime)
    with connected(runtime, 1), server_identity():
        from fedmd.runs.ray_grid import ray_grid

        with ray_grid(odd_clients(), runtime, 100, 100, TIMEOUT_S) as grid:
            while not grid.get_node_ids():
                time.sleep(0.1)
            yield grid


def ask(grid: Any, nodes: range, kind: str = "query.odd", content: RecordDict | None = None) -> dict[int, Message]:
    requests = {node: Message(content or RecordDict(), node, kind) for node in nodes}
    return dict(Nodes(grid, CONFIG, "").ask(requests))


def errors(replies: dict[int, Message]) -> dict[int, Error]:
    return {node: reply.error for node, reply in replies.items() if reply.has_error()}


def test_odd_clients_cost_nobody_else_an_answer(grid: Any) -> None:
    replies = ask(grid, range(1, 101))
    assert set(replies) == set(range(1, 101)) - {7}  # it hangs
    found = {node: str(error.reason) for node, error in errors(replies).items()}
    assert set(found) == {1, 2, 3, 4, 5, 6}
    assert "returned a NoneType" in found[1] and "y" in found[6]
    assert "TypeError" in found[3] and all("its worker was lost" in found[node] for node in (4, 5))
    again = ask(grid, range(8, 101))
    assert set(again) == set(range(8, 101)) and not errors(again)  # nobody waits for what hangs


def test_the_model_is_one_copy_for_all(grid: Any, tmp_path: Path) -> None:
    linear = nn.Linear(3000, 3000)  # 36 MB
    net = nn.Sequential(linear, nn.BatchNorm1d(3000))
    exchange = grid.exchange(tmp_path)
    for _ in range(2):
        with torch.no_grad():
            linear.weight.add_(1)
        published = exchange.publish(0, net)
        assert published.model is None
        content = RecordDict({HEADER: ConfigRecord({"model_file": published.model_file})})
        replies = ask(grid, range(1, 21), "query.model", content)
        assert not errors(replies) and len(replies) == 20
        told = [reply.content.config_records["told"] for reply in replies.values()]
        total = float(sum(tensor.double().sum() for tensor in net.state_dict().values()))
        assert {one["sum"] for one in told} == {total}
        assert told[0]["names"] == list(net.state_dict())
        if sys.platform == "linux":
            assert all("/dev/shm/plasma" in str(one["lies in"]) for one in told)  # of all processes, once
