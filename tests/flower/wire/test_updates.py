"""Updates a hostile or broken client may send: each is refused with a reason, and its neighbours are kept."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fedmd.flower.wire.updates import UPDATE, ClientUpdate, ExpectedUpdate, read_updates, updates_reply
from tests.flower.wire.examples import ROUND, reply

FLOAT = np.dtype(np.float32)
EXPECTED = ExpectedUpdate({"weight": ((2, 3), FLOAT), "bias": ((2,), FLOAT), "scalar": ((), FLOAT)}, max_examples=50)


def arrays(client: int) -> ArrayRecord:
    rng = np.random.default_rng(client)
    values = {name: rng.random(shape, np.float32) for name, (shape, _) in EXPECTED.tensors.items()}
    return ArrayRecord({name: Array(np.asarray(value, np.float32)) for name, value in values.items()})


def honest(*clients: int) -> RecordDict:
    return updates_reply(ROUND, [ClientUpdate(client, arrays(client), 10 + client, 0.5) for client in clients])


def sent(content: RecordDict | Error) -> Message:
    return reply(content, UPDATE)


def refused(content: RecordDict) -> str:
    """Why client 0's part of `content` was refused; client 1's update must have survived."""
    updates, rejections = read_updates(sent(content), ROUND, [0, 1], EXPECTED)
    assert [update.client for update in updates] == [1]
    (rejection,) = rejections
    assert rejection.client == 0 and "\n" not in rejection.reason and len(rejection.reason) <= 200
    return rejection.reason


def test_there_and_back() -> None:
    updates, rejections = read_updates(sent(honest(1, 0)), ROUND, [0, 1], EXPECTED)
    assert rejections == []
    assert [(update.client, update.examples, update.seconds) for update in updates] == [(0, 10, 0.5), (1, 11, 0.5)]
    for update in updates:
        assert list(update.arrays) == list(EXPECTED.tensors)
        for name, array in arrays(update.client).items():
            assert np.array_equal(update.arrays[name].numpy(), array.numpy())


def test_the_order_of_tensors_is_ours() -> None:
    """Krum and its like compare flattened models: who sends them in another order gains nothing."""
    content = honest(0, 1)
    content["update.0"] = ArrayRecord(dict(reversed(arrays(0).items())))
    updates, _ = read_updates(sent(content), ROUND, [0, 1], EXPECTED)
    assert list(updates[0].arrays) == list(EXPECTED.tensors)
    assert np.array_equal(updates[0].arrays["weight"].numpy(), arrays(0)["weight"].numpy())


def changed(name: str, value: Any) -> RecordDict:
    record = dict(arrays(0).items())
    record[name] = value if isinstance(value, Array) else Array(value)
    content = honest(0, 1)
    content["update.0"] = ArrayRecord(record)
    return content


LYING = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=Array(np.zeros(3, np.float32)).data)
PICKLE = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"\x80\x04N.")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bias", np.array([0, np.nan], np.float32), "not finite"),
        ("bias", np.array([0, -np.inf], np.float32), "not finite"),
        ("bias", np.zeros(2), "must be float32, not float64"),
        ("bias", np.zeros(2, np.int32), "must be float32, not int32"),
        ("bias", np.zeros(3, np.float32), "must have shape"),
        ("weight", np.zeros((3, 2), np.float32), "must have shape"),
        ("bias", LYING, "is declared as"),
        ("bias", PICKLE, "cannot be read"),
        ("surprise", np.zeros(2, np.float32), "another model"),
    ],
)
def test_tensors_that_are_not_the_models(name: str, value: Any, reason: str) -> None:
    assert reason in refused(changed(name, value))


def test_missing_tensors_and_missing_updates() -> None:
    content = honest(0, 1)
    content["update.0"] = ArrayRecord({"bias": arrays(0)["bias"]})
    assert "another model" in refused(content)
    content = honest(0, 1)
    del content["update.0"]
    assert "no update" in refused(content)
    assert "does not list it" in refused(honest(1))


@pytest.mark.parametrize("examples", [0, -3, 51, 10**12])
def test_nobody_weighs_what_it_likes(examples: int) -> None:
    content = updates_reply(ROUND, [ClientUpdate(0, arrays(0), examples, 0.0), ClientUpdate(1, arrays(1), 10, 0.0)])
    assert "from 1 to 50" in refused(content)


@pytest.mark.parametrize(
    "header",
    [
        {"protocol": 1, "round": ROUND},
        {"protocol": 1, "round": ROUND, "clients": [0, 1], "examples": [1], "seconds": [0.0, 0.0]},
        {"protocol": 1, "round": ROUND, "clients": 0, "examples": 1, "seconds": 0.0},
        {"protocol": 2, "round": ROUND, "clients": [0, 1], "examples": [1, 1], "seconds": [0.0, 0.0]},
        {"protocol": 1, "round": 4, "clients": [0, 1], "examples": [1, 1], "seconds": [0.0, 0.0]},
    ],
)
def test_a_header_that_lies_costs_its_whole_node(header: dict[str, Any]) -> None:
    content = honest(0, 1)
    content["fedmd"] = ConfigRecord(header)
    updates, rejections = read_updates(sent(content), ROUND, [0, 1], EXPECTED)
    assert updates == [] and [rejection.client for rejection in rejections] == [0, 1]


def test_errors_and_records_nobody_asked_for() -> None:
    updates, rejections = read_updates(sent(Error(2, "Traceback\nOSError: disk")), ROUND, [0, 1], EXPECTED)
    assert updates == [] and all("OSError: disk" in rejection.reason for rejection in rejections)
    updates, rejections = read_updates(sent(honest(0, 1, 2)), ROUND, [0, 1], EXPECTED)
    assert [update.client for update in updates] == [0, 1]
    assert "update.2" in rejections[0].reason


def test_odd_seconds_are_nobodys_problem() -> None:
    content = updates_reply(ROUND, [ClientUpdate(0, arrays(0), 1, float("nan")), ClientUpdate(1, arrays(1), 1, -1.0)])
    updates, rejections = read_updates(sent(content), ROUND, [0, 1], EXPECTED)
    assert rejections == [] and [update.seconds for update in updates] == [0.0, 0.0]
