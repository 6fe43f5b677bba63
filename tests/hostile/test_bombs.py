"""Replies made to keep the server busy: found out by counting, before anything in them is read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fedmd.audit.reader import read_live
from fedmd.config import QuarantineConfig
from fedmd.defense.evidence import ranked_among
from fedmd.defense.quarantine import Quarantine
from fedmd.flower.client.app import app
from fedmd.flower.wire.extent import Extent, measure
from fedmd.flower.wire.header import INFO
from fedmd.runs.compose import compose
from fedmd.runs.federation import serve
from fedmd.runs.inline import InlineGrid
from fedmd.types import RoundReport
from simulations.benchmarks.refusal import BOMBS, MOST, ONE, reply, update
from tests.runs.test_damage import SMALL

READ = ("an honest reply", "one batch of 50,000 images, ten times", "not a number, in every tensor")


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower sets this when it starts a ServerApp."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def received(content: RecordDict) -> Message:
    return Message(content, dst_node_id=1, message_type=INFO)


@pytest.mark.parametrize("name", [name for name in BOMBS if name not in READ])
def test_a_bomb_is_refused_by_counting(name: str) -> None:
    assert "more than" in str(measure(received(BOMBS[name]()), MOST).excess)


@pytest.mark.parametrize("name", READ)
def test_what_is_no_more_than_was_asked_for_is_read(name: str) -> None:
    content = BOMBS[name]()
    measured = measure(received(content), MOST)
    assert measured.excess is None
    assert measured.data == sum(record.count_bytes() for record in content.array_records.values())


class Counting(ArrayRecord):
    """A record that knows how many of its arrays were looked at."""

    looked_at = 0

    def items(self) -> Any:
        for item in super().items():
            self.looked_at += 1
            yield item


def test_counting_stops_at_the_bound() -> None:
    record = Counting({f"layer.{i}": ONE for i in range(50_000)})
    most = Extent(1, 3, 10**9, "a bound")
    assert measure(received(RecordDict({"update.0": record})), most).excess is not None
    assert record.looked_at <= 1 * 3 + 64 + 1


def test_data_is_counted_as_often_as_it_would_be_read() -> None:
    """Twenty names for one array: sent once, hashed and looked through twenty times."""
    content = reply(update())
    exactly = sum(record.count_bytes() for record in content.array_records.values())
    enough, too_little = (Extent(10, 20, most, "what fits") for most in (exactly, exactly - 1))
    assert measure(received(content), enough).excess is None
    said = measure(received(content), too_little).excess
    assert said == f"the message has {exactly} bytes of arrays, more than what fits"


def test_a_shape_of_numbers_that_no_tensor_has() -> None:
    odd = Array("float32", (2**70,), "numpy.ndarray", ONE.data)
    most = Extent(1, 1, 10**9, "a bound")
    assert measure(received(RecordDict({"update.0": ArrayRecord({"layer": odd})})), most).excess is not None


def test_a_few_records_too_many_are_read_with_the_others() -> None:
    """Each is refused with a reason of its own, and costs nobody else anything."""
    content = reply(update(), **{f"more.{i}": ConfigRecord({"a": "b" * 100}) for i in range(10)})
    assert measure(received(content), MOST).excess is None


def test_the_third_time_puts_a_client_in_quarantine() -> None:
    config, quarantine = QuarantineConfig(name="evidence", false_alarms=0.05), Quarantine()
    for round in range(3):
        assert quarantine.since == {}
        quarantine = quarantine.after_excess(round, frozenset({4}), config)
    assert quarantine.since == {4: 2}
    assert quarantine.after_excess(3, frozenset(), config) == quarantine


def bombing(message: Message, context: Context) -> Message:
    """The client app; node 2 answers with one array under 10,000 names."""
    if context.node_id != 2 or message.metadata.message_type == INFO:
        return app(message, context)
    return Message(reply(update(names=[f"layer.{i}" for i in range(10_000)])), reply_to=message)


UPDATES = ["mode=update", "defense=md_screen", "local.samples=8", "local.batch_size=4"]


@pytest.mark.parametrize("mode", ["stream", "update"])
def test_a_run_goes_on_beside_a_node_that_sends_bombs(mode: str, tmp_path: Path) -> None:
    """It loses its rounds, is on record with the reason, and from the third on it is in quarantine."""
    streaming = ("defense=", "stream.batch_size=")
    small = SMALL if mode == "stream" else [*(each for each in SMALL if not each.startswith(streaming)), *UPDATES]
    place = [f"hydra.run.dir={tmp_path / 'run'}", f"runtime.cache_dir={tmp_path}"]
    config = compose([*small, "quarantine=evidence", *place]).config
    reports: list[RoundReport] = []
    grid = InlineGrid(bombing, config.federation.node_count)  # type: ignore[arg-type]
    serve(grid, config, tmp_path / "run", lambda _, report: reports.append(report))
    assert [{item.client for item in report.rejections} for report in reports] == [{1}] * len(reports)
    records = [record.entry for record in read_live(tmp_path / "run" / "audit")]
    said = [entry.reason or "" for entry in records if entry.kind == "message" and entry.client == 1]
    assert len(said) == len(reports) == 4 and all("the message has more than" in reason for reason in said)
    caught = [entry for entry in records if entry.kind == "quarantine"]
    assert [(entry.action, entry.client, entry.round) for entry in caught] == [("quarantined", 1, 2)]
    judged = {(entry.round, entry.client) for entry in records if entry.action in ("accepted", "corrected")}
    assert judged == {(round, client) for round in range(4) for client in (0, 2)}


def test_honest_rounds_in_between_speak_for_a_client() -> None:
    config = QuarantineConfig(name="evidence", false_alarms=0.05)
    quarantine = Quarantine().after_excess(0, frozenset({4}), config)
    low, trusted = np.zeros(50), np.ones(200)
    quarantine = quarantine.after(1, np.full(50, 4), ranked_among(low, trusted), config)
    assert quarantine.evidence.of(4) == 0.0
