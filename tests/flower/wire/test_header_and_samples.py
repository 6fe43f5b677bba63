"""What travels: through Flower's own serialisation and back, and replies that are refused as a whole."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedmd.flower.wire.header import INFO, Request, info_reply, info_request, read_info, read_request, request_content
from fedmd.flower.wire.samples import STREAM, ExpectedBatch, batches_reply, read_batches
from tests.flower.wire.examples import ROUND, batch, honest, read_round, reply
from tests.inline import over_the_wire

EXPECTED = ExpectedBatch(shape=(1, 4, 4), classes=10, max_samples=3)


def config(**values: Any) -> RecordDict:
    return RecordDict({"fedmd": ConfigRecord(values)})


# -- what is meant to travel ------------------------------------------------------------------------------------


def test_batches_round_trip() -> None:
    batches, rejections = read_round(reply(honest(0, 1)), ROUND, [0, 1], EXPECTED)
    assert rejections == []
    assert [kept.client for kept in batches] == [0, 1]
    for kept in batches:
        assert kept.round == ROUND and kept.images.dtype == np.uint8 and kept.labels.dtype == np.int64
        assert np.array_equal(kept.images, batch(kept.client).images)
        assert np.array_equal(kept.labels, batch(kept.client).labels)


def test_a_smaller_batch_is_fine() -> None:
    message = reply(batches_reply(ROUND, [batch(0, n=1)]))
    batches, rejections = read_round(message, ROUND, [0], EXPECTED)
    assert rejections == [] and len(batches[0]) == 1


def test_requests_round_trip() -> None:
    model = {"weight": torch.randn(2, 3), "count": torch.tensor(7)}
    sent = Request(
        "{run}", 3, (4, 1), session="s", exchange="/dev/shm/x", model_file="m", batches=2, proximal_mu=0.25, classes=7
    )
    for request in (sent, replace(sent, model=ArrayRecord(model))):
        read = read_request(over_the_wire(Message(request_content(request), 1, STREAM)))
        assert replace(read, model=None) == sent and (read.model is None) == (request.model is None)
    assert read.model is not None
    received = read.model.to_torch_state_dict()
    assert all(torch.equal(received[name], tensor) for name, tensor in model.items())
    info = read_request(over_the_wire(Message(info_request("{run}", "/dev/shm/x"), 1, INFO)))
    assert (info.run, info.clients, info.model, info.exchange) == ("{run}", (), None, "/dev/shm/x")


def test_batches_of_several_rounds_are_read_round_by_round() -> None:
    later = replace(batch(0), round=ROUND + 1)
    message = reply(batches_reply(ROUND, [batch(0), later, batch(1)]))
    now, then = read_batches(message, ROUND, 2, [0, 1], EXPECTED)
    assert [(kept.client, kept.round) for kept in now[0]] == [(0, ROUND), (1, ROUND)] and now[1] == []
    assert [(kept.client, kept.round) for kept in then[0]] == [(0, ROUND + 1)]
    assert [(refused.client, refused.reason) for refused in then[1]] == [
        (1, "there is no batch with images and labels")
    ]


def test_a_request_of_another_protocol_is_refused() -> None:
    content = info_request("{}")
    content.config_records["fedmd"]["protocol"] = 2
    with pytest.raises(ValueError, match="differ in version"):
        read_request(Message(content, 1, INFO))


def test_no_message_says_what_is_poisoned() -> None:
    content = honest(0)
    assert set(content) == {"fedmd", "batch.0"}
    assert set(content.config_records["fedmd"]) == {"protocol", "round", "clients"}
    assert set(content.array_records["batch.0"]) == {"images", "labels"}


# -- a reply as a whole -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (Error(2, "boom"), "error 2: boom"),
        (Error(7), "error 7"),
        (Error(7, "\n \n"), "error 7"),
        (RecordDict(), "'fedmd' is missing"),
        (RecordDict({"fedmd": MetricRecord({"round": ROUND})}), "'fedmd' is missing"),
        (config(protocol=1, round=4), "for round 4, not 5"),
        (config(protocol=1), "for round None"),
        (config(protocol=1, round=5.0), "for round 5.0"),
        (config(protocol=1, round="5"), "for round '5'"),
        (config(protocol=1, round=[5] * 1000), "for round [5, 5"),
        (config(protocol=2, round=5), "protocol must be 1"),
        (config(round=5), "protocol must be 1"),
    ],
)
def test_a_reply_refused_as_a_whole(content: RecordDict | Error, reason: str) -> None:
    if isinstance(content, RecordDict):
        for client in (0, 1):  # nothing is wrong with the batches
            content[f"batch.{client}"] = honest(client)[f"batch.{client}"]
    batches, rejections = read_round(reply(content), ROUND, [0, 1], EXPECTED)
    assert batches == []
    assert [rejection.client for rejection in rejections] == [0, 1]
    for rejection in rejections:
        assert reason in rejection.reason and len(rejection.reason) < 400


def test_round_true_is_not_round_one() -> None:
    assert read_round(reply(config(protocol=1, round=True)), 1, [0], EXPECTED)[0] == []


def test_an_errors_traceback_is_told_in_one_printable_line() -> None:
    """It differs between runs (pids) and would otherwise paint the terminal."""
    reason = 'File "x.py", pid=16761\n\x1b[31mTraceback\x1b[0m\n  in f\nValueError: \x1b]0;evil\x07 no data\n\n'
    _, rejections = read_round(reply(Error(2, reason)), ROUND, [0], EXPECTED)
    assert rejections[0].reason == "the node answered with error 2: ValueError: ]0;evil no data"


def test_records_nobody_asked_for_are_noted_and_ignored() -> None:
    content = honest(0, 1, 2)
    content["truth"] = MetricRecord({"poisoned": 1})
    batches, rejections = read_round(reply(content), ROUND, [0, 1], EXPECTED)
    assert [kept.client for kept in batches] == [0, 1]
    assert len(rejections) == 1 and "batch.2" in rejections[0].reason and "truth" in rejections[0].reason


# -- who a node says it is --------------------------------------------------------------------------------------


def test_info_round_trip() -> None:
    assert read_info(reply(info_reply([3, 1], wants_model=True)), 4) == ((3, 1), True)
    assert read_info(reply(info_reply([], wants_model=False)), 4) == ((), False)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"clients": [4], "wants_model": False}, "ids below 4"),
        ({"clients": [-1], "wants_model": False}, "ids below 4"),
        ({"clients": [1.0], "wants_model": False}, "ids below 4"),
        ({"clients": [True], "wants_model": False}, "ids below 4"),
        ({"clients": ["1"], "wants_model": False}, "ids below 4"),
        ({"clients": 1, "wants_model": False}, "ids below 4"),
        ({"wants_model": False}, "ids below 4"),
        ({"clients": [1, 1], "wants_model": False}, "claimed twice"),
        ({"clients": [1], "wants_model": 1}, "wants_model must be a boolean"),
        ({"clients": [1]}, "wants_model must be a boolean"),
        ({"protocol": 2, "clients": [1], "wants_model": False}, "protocol must be 1, not 2"),
        ({"protocol": True, "clients": [1], "wants_model": False}, "protocol must be 1, not True"),
    ],
)
def test_a_bad_claim(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_info(reply(config(**{"protocol": 1, **values})), 4)


def test_content_is_the_hash_of_what_was_sent() -> None:
    """The same for the same message, another for another, and also of what is refused."""
    expected = ExpectedBatch((1, 4, 4), 10, 3)
    one, again = (read_round(reply(honest(0, 1)), 5, [0, 1], expected)[0] for _ in range(2))
    assert [batch.content for batch in one] == [batch.content for batch in again]
    assert len({batch.content for batch in one}) == 2 and all(len(str(batch.content)) == 64 for batch in one)
    narrow = ExpectedBatch((1, 4, 4), 10, 2)
    batches, refused = read_round(reply(honest(0, 1)), 5, [0, 1], narrow)
    assert batches == [] and [item.content for item in refused] == [batch.content for batch in one]
