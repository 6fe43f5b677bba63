"""The engine in this process hands models over by reference; its numbers are those of messages made of bytes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fedmd.flower.client.app import app
from fedmd.flower.wire.arrays import ArrayView, pieces, read_array, size_of, views
from fedmd.flower.wire.header import content_hash
from fedmd.flower.wire.updates import ClientUpdate, updates_reply
from fedmd.report.files import read_metrics
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid, server_identity
from fedmd.training.local import take_state
from tests.golden.runs import RUNS
from tests.inline import Inline, simulated_nodes

NAMES = ["stream-dsc-snapshot", "update-screened-fedadam-alie", "update-correct-quarantine"]


def rounds(grid: Any, name: str, folder: Path, cache: Path, *more: str) -> list[Any]:
    config = compose([*RUNS[name], *more, f"hydra.run.dir={folder}", f"runtime.cache_dir={cache}"]).config
    with server_identity():
        summary = serve(grid(config.federation.simulated_nodes), config, folder, lambda config, report: None)
    lines = [{key: value for key, value in line.items() if key != "wall_s"} for line in read_metrics(folder)]
    return [lines, summary["accuracy"], summary["detection"], summary["bytes_received"]]


@pytest.mark.parametrize("name", NAMES)
def test_by_reference_as_by_bytes(name: str, tmp_path: Path) -> None:
    here = rounds(lambda nodes: InlineGrid(app, nodes), name, tmp_path / "here", tmp_path)
    there = rounds(lambda nodes: Inline(simulated_nodes(app, nodes)), name, tmp_path / "there", tmp_path)
    assert here == there


def test_data_fetched_while_the_server_learns_are_the_same(tmp_path: Path) -> None:
    """Of attackers who look at the model, and stop when it has got bad enough; several rounds' in one reply."""
    said = "attack.stop_error_rise=0.02", "federation.batches_per_reply=2"
    ahead, after = (
        rounds(
            lambda nodes: InlineGrid(app, nodes), NAMES[0], tmp_path / how, tmp_path, *said, f"runtime.overlap={how}"
        )
        for how in ("true", "false")
    )
    assert ahead == after


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8", "bool"])
def test_a_view_has_the_bytes_of_flowers_array(shape: tuple[int, ...], dtype: str) -> None:
    values = np.arange(int(np.prod(shape))).astype(dtype).reshape(shape) if shape else np.array(1, dtype)
    view, array = ArrayView(values), Array(values)
    assert b"".join(pieces(view)) == view.data == array.data
    assert size_of(view) == len(array.data)
    assert (view.dtype, tuple(view.shape), view.stype) == (array.dtype, tuple(array.shape), array.stype)
    assert np.array_equal(view.numpy(), values) and read_array("x", view) is view.values
    with pytest.raises(ValueError, match="read-only"):
        view.numpy()[...] = 0


def test_what_is_no_answer_is_an_error_of_its_node() -> None:
    """The same function answers in Ray's workers."""
    app, others = ClientApp(), list[Message]()

    @app.query()
    def odd(message: Message, context: Context) -> Any:
        node = context.node_id
        return [None, Message(RecordDict(), reply_to=others[0]), Message(RecordDict(), reply_to=message)][node - 1]

    with server_identity():
        grid, asked = InlineGrid(app, 3), [Message(RecordDict(), node, "query") for node in (1, 2, 3)]
        ids = grid.push_messages(asked)
        others.append(asked[2])
        replies = [grid.pull_messages(ids)[0] for _ in asked]
        assert [reply.metadata.reply_to_message_id for reply in replies] == ids
        assert "returned a NoneType, not a message" in replies[0].error.reason
        assert "answered what it was not asked" in replies[1].error.reason
        assert not replies[2].has_error()
        with pytest.raises(TypeError, match="no run at a SuperLink"):
            grid.send_and_receive(asked)


def test_a_column_major_array_comes_in_rows() -> None:
    values = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert np.array_equal(Array(ArrayView(values).values).numpy(), values)


def test_the_hash_of_views_is_that_of_arrays() -> None:
    tensors = {"b": torch.randn(3), "a": torch.randn(2, 2)}
    bytewise = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})

    def hashed(record: ArrayRecord) -> str | None:
        reply: Any = SimpleNamespace(content=updates_reply(0, [ClientUpdate(7, record, 1, 0.0)]))
        return content_hash(reply, "update.7")

    assert hashed(views(tensors)) == hashed(bytewise) != hashed(views({"a": tensors["a"]}))


def test_a_state_that_was_taken_is_nobody_elses() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    taken = take_state(net)
    assert set(taken) == {name for name in before if not name.endswith("num_batches_tracked")}
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in taken.items())
    net.load_state_dict(before)
    assert all(parameter.requires_grad for parameter in net.parameters())
