"""One finite update of ±3.4e38 in a round without a defence: the model, and what the strategy remembers, outlive it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, RecordDict

from fedmd.audit.reader import read_live
from fedmd.report.recorder import round_metrics
from tests.flower.federation import Outcome

pytestmark = pytest.mark.usefixtures("quick_collections")
HUGE_IN, BAD = 1, 1  # the round, and who sends it
STRATEGIES: list[dict[str, Any]] = [
    {"name": "fedavg"},
    {"name": "fedprox"},
    {"name": "fedavgm", "momentum": 0.9},
    {"name": "fedadam", "lr": 0.01},
    {"name": "byzfl", "aggregator": "Average"},
]


def huge(content: RecordDict) -> None:
    """Every weight the largest there is, with alternating signs."""
    if content.config_records["fedmd"]["round"] != HUGE_IN:
        return
    record = content.array_records[f"update.{BAD}"]
    for name in list(record):
        values = np.full(record[name].shape, np.finfo(np.float32).max)
        values.flat[::2] *= -1
        record[name] = Array(values.astype(np.float32))


def equal(first: Any, second: Any) -> bool:
    """Trees of tensors, bit for bit."""
    if isinstance(first, torch.Tensor):
        return bool(torch.equal(first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy["name"])
def test_a_round_with_an_unusable_aggregate_changes_nothing(
    run: Any, strategy: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Not the model, not what the strategy remembers; and nobody honest is called "not finite" for it later."""
    states: list[Any] = []
    outcome = Outcome()
    done = run(
        {"strategy": strategy, "stream.clean_rounds": 3},
        spoil={BAD: huge},
        watch=lambda report: states.append(copy.deepcopy(outcome.server.state())),
        outcome=outcome,
    )
    undone = [report.undone for report in done.reports]
    assert undone[HUGE_IN] is not None and "finite" in undone[HUGE_IN]
    assert [why for why in undone if why is not None] == [undone[HUGE_IN]]
    assert [record.getMessage() for record in caplog.records] == [f"{undone[HUGE_IN]}; the model stays as it was"]
    assert equal(states[HUGE_IN], states[HUGE_IN - 1]) and not equal(states[HUGE_IN + 1], states[HUGE_IN])
    assert all(report.rejections == () for report in done.reports)
    assert done.server.version == len(done.reports) - 1


def test_it_is_on_record(run: Any, tmp_path: Any) -> None:
    done = run({"stream.clean_rounds": 3}, spoil={BAD: huge})
    (entry,) = [r.entry for r in read_live(tmp_path / "0" / "audit") if r.entry.kind == "model"]
    assert (entry.action, entry.round, entry.client) == ("undone", HUGE_IN, None)
    assert entry.reason == done.reports[HUGE_IN].undone
    rows = [round_metrics(report) for report in done.reports]
    assert [row.get("undone") for row in rows] == [report.undone for report in done.reports]
