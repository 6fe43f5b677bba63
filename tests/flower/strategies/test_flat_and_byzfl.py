"""Our robust strategies on real messages: what they hand back is θ_t plus the kernel's answer, in θ_t's own dtypes."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmd.config import ConfigError
from fedmd.flower.strategies import byzfl as byzfl_strategy
from fedmd.flower.strategies.byzfl import ByzFL
from fedmd.flower.strategies.vectors import CenteredClipping, FLTrust, NormClipping

START = {"w": np.array([[1.0, 2.0]], np.float32), "var": np.array([5.0], np.float32), "n": np.array(4)}
STEPS = [(3.0, 4.0), (0.0, 1.0), (0.0, -2.0)]
EXAMPLES = [1, 1, 2]


class Nodes:
    def get_node_ids(self) -> list[int]:
        return [1, 2, 3]


def aggregated(strategy: FedAvg, steps: list[tuple[float, float]] = STEPS) -> dict[str, Any]:
    """What `strategy` makes of one reply per step; running statistics grow by 1, 2, 3, counters by 12, 24, 36."""
    start = ArrayRecord({name: Array(value) for name, value in START.items()})
    messages = strategy.configure_train(1, start, ConfigRecord(), Nodes())  # type: ignore[arg-type]
    requests = sorted(messages, key=lambda message: message.metadata.dst_node_id)
    replies = []
    for i, (message, step) in enumerate(zip(requests, steps, strict=False)):
        state = {
            "w": START["w"] + np.array([step], np.float32),
            "var": START["var"] + np.float32(i + 1),
            "n": np.asarray(START["n"] + 12 * (i + 1)),
        }
        content = RecordDict(
            {
                "arrays": ArrayRecord({name: Array(value) for name, value in state.items()}),
                "metrics": MetricRecord({"num-examples": EXAMPLES[i]}),
            }
        )
        replies.append(Message(content, reply_to=message))
    arrays, _ = strategy.aggregate_train(1, replies)
    assert arrays is not None
    assert list(arrays) == list(START)
    found = {name: array.numpy() for name, array in arrays.items()}
    assert {name: value.dtype for name, value in found.items()} == {name: value.dtype for name, value in START.items()}
    return found


def test_norm_clipping_by_hand() -> None:
    found = aggregated(NormClipping(bound=1.0, entries=["w"]))
    # (0.6, 0.8), (0, 1), (0, -1) with weights 1/4, 1/4, 1/2
    np.testing.assert_allclose(found["w"], [[1 + 0.15, 2 + 0.45 - 0.5]], rtol=1e-6)
    np.testing.assert_allclose(found["var"], [5 + (1 + 2 + 6) / 4])
    assert found["n"] == 4 + (12 + 24 + 72) / 4


def test_a_huge_bound_is_fedavg() -> None:
    found, plain = aggregated(NormClipping(bound=1e9)), aggregated_by_fedavg()
    for name in ("w", "var"):
        np.testing.assert_allclose(found[name], plain[name], rtol=1e-6)


def aggregated_by_fedavg() -> dict[str, Any]:
    weights = np.array(EXAMPLES) / sum(EXAMPLES)
    return {
        "w": START["w"] + (weights[:, None] * np.array(STEPS)).sum(0),
        "var": START["var"] + (weights * [1, 2, 3]).sum(),
    }


def test_centered_clipping_starts_from_the_last_rounds_aggregate() -> None:
    strategy = CenteredClipping(radius=1.0, iterations=1, entries=["w"])
    first = aggregated(strategy)["w"] - START["w"]
    np.testing.assert_allclose(first, [[0.2, 0.8 / 3]], rtol=1e-5)  # mean of (.6, .8), (0, 1), (0, -1)
    away = np.array(STEPS) - first
    shrunk = away * np.minimum(1, 1 / np.linalg.norm(away, axis=1))[:, None]
    second = aggregated(strategy)["w"] - START["w"]
    np.testing.assert_allclose(second, first + shrunk.mean(0), rtol=1e-5)


def test_fltrust_trains_from_the_global_model_and_may_overwrite_what_it_is_given() -> None:
    asked: list[int] = []

    def train(round: int, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        asked.append(round)
        assert state["w"].tolist() == [[1.0, 2.0]]
        state["w"] += torch.tensor([[0.0, 2.0]])
        return state

    found = aggregated(FLTrust(root_update=train, entries=["w"]))
    # Δ_0 = (0, 2): trusts 0.8 and 1, updates of norm 2: (1.2, 1.6) and (0, 2)
    np.testing.assert_allclose(found["w"] - START["w"], [[0.8 * 1.2 / 1.8, (0.8 * 1.6 + 2) / 1.8]], rtol=1e-5)
    assert asked == [1]


@pytest.mark.parametrize("strategy", [NormClipping(), CenteredClipping()])
def test_no_replies_keep_the_model(strategy: FedAvg) -> None:
    assert strategy.aggregate_train(1, []) == (None, None)


def test_byzfl_by_name_is_byzfls_answer() -> None:
    byzfl = pytest.importorskip("byzfl")
    rows = torch.tensor([[*step, i + 1.0] for i, step in enumerate(STEPS)])
    for name, options in {"Median": {}, "TrMean": {"f": 1}, "GeometricMedian": {"nu": 0.1, "T": 5}}.items():
        found = aggregated(ByzFL(aggregator=name, options=options))
        step = np.concatenate([(found["w"] - START["w"]).ravel(), found["var"] - START["var"]])
        np.testing.assert_allclose(step, getattr(byzfl, name)(**options)(rows).numpy(), rtol=1e-4, atol=1e-5)


def test_wrong_byzfl_settings_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("byzfl")
    with pytest.raises(ConfigError, match=r"strategy.aggregator: 'Mean' is not one of Average, .*TrMean"):
        ByzFL(aggregator="Mean")
    with pytest.raises(ConfigError, match=r"strategy.options: byzfl's Median does not take"):
        ByzFL(aggregator="Median", options={"f": 3})
    monkeypatch.setitem(__import__("sys").modules, "byzfl.aggregators", None)
    with pytest.raises(ConfigError, match="pip install"):
        byzfl_strategy.byzfl_rule("Median", {})
