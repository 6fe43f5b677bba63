"""DiscrepancyScreening round Flower's own strategies, on real messages without Flower's processes."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    Krum,
    MultiKrum,
    Strategy,
)
from torch import nn

from fedmd.defense.history import Lag
from fedmd.defense.updates.limits import robust_threshold
from fedmd.flower.strategies.screening import DiscrepancyScreening
from fedmd.types import Action

STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "fedavg": FedAvg,
    "fedavgm": lambda: FedAvgM(server_momentum=0.9),
    "fedadam": FedAdam,
    "fedprox": lambda: FedProx(proximal_mu=0.1),
    "fedmedian": FedMedian,
    "fedtrimmedavg": FedTrimmedAvg,
    "krum": lambda: Krum(num_malicious_nodes=1),
    "multikrum": lambda: MultiKrum(num_malicious_nodes=1, num_nodes_to_select=3),
    "bulyan": lambda: Bulyan(num_malicious_nodes=1),
}
EVERYTHING = math.inf
pytestmark = pytest.mark.usefixtures("quick_collections")


class Clients:
    """A grid whose nodes answer by `answer(node, arrays) -> RecordDict | Error`, in the order of `order`."""

    def __init__(self, nodes: int, answer: Callable[[int, ArrayRecord], RecordDict | Error]) -> None:
        self.nodes, self.answer, self.order = list(range(1, nodes + 1)), answer, slice(None)

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        requests = sorted(messages, key=lambda message: message.metadata.dst_node_id)
        return [
            Message(self.answer(m.metadata.dst_node_id, m.content.array_records["arrays"]), reply_to=m)
            for m in requests
            if m.metadata.message_type == "train"
        ][self.order]


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


PROBE = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def moved(node: int, arrays: ArrayRecord, size: float = 0.01) -> dict[str, Any]:
    """`arrays` and a step of about `size` per entry, counters included: what a client would send back."""
    rng = np.random.default_rng(node)
    state = {}
    for name, own in net().state_dict().items():
        array = arrays[name].numpy()
        state[name] = (
            (array + size * rng.random(array.shape)).astype(np.float32)
            if own.is_floating_point()
            else np.asarray(array + 3).astype(np.int64)
        )
    return state


def record(state: dict[str, Any], **metrics: Any) -> RecordDict:
    arrays = ArrayRecord({name: Array(np.asarray(value)) for name, value in state.items()})
    return RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 10, "loss": 0.5, **metrics})})


def honest(node: int, arrays: ArrayRecord) -> RecordDict:
    return record(moved(node, arrays), **{"num-examples": 10 + node})


def screening(inner: Strategy, **settings: Any) -> DiscrepancyScreening:
    return DiscrepancyScreening(inner, model=net(), probe=PROBE, **settings)


def run(strategy: Strategy, clients: Clients, rounds: int = 2) -> Any:
    return strategy.start(grid=clients, initial_arrays=ArrayRecord(net().state_dict()), num_rounds=rounds)  # type: ignore[arg-type]


def bits(arrays: ArrayRecord) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(a.numpy().dtype), a.numpy().shape, a.numpy().tobytes()) for name, a in arrays.items()}


def one_round(strategy: Strategy, answers: list[RecordDict | Error]) -> tuple[Any, list[Message]]:
    """Round 1 of `strategy` with these answers of nodes 1, 2, ...; the arrays it made and the replies it got."""
    clients = Clients(len(answers), lambda node, _: answers[node - 1])
    requests = strategy.configure_train(1, ArrayRecord(net().state_dict()), ConfigRecord(), clients)  # type: ignore[arg-type]
    replies = clients.send_and_receive(requests)
    return strategy.aggregate_train(1, replies)[0], replies


def start_arrays() -> ArrayRecord:
    return ArrayRecord(net().state_dict())


@pytest.mark.parametrize("name", STRATEGIES)
def test_honest_federation_with_nothing_over_the_threshold_is_the_inner_strategys_bit_for_bit(name: str) -> None:
    plain = run(STRATEGIES[name](), Clients(8, honest))
    strategy = screening(STRATEGIES[name](), threshold=EVERYTHING)
    screened = run(strategy, Clients(8, honest))
    assert bits(screened.arrays) == bits(plain.arrays)
    assert screened.train_metrics_clientapp == plain.train_metrics_clientapp
    assert bits(plain.arrays) != bits(start_arrays())
    assert [verdict.action for verdict in strategy.verdicts] == [Action.ACCEPTED] * 8


def test_untouched_replies_are_the_very_messages_that_came() -> None:
    class Inner(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            self.seen = list(replies)
            return super().aggregate_train(server_round, self.seen)

    inner = Inner()
    answers: list[RecordDict | Error] = [honest(node, start_arrays()) for node in range(1, 8)]
    answers[2] = record(moved(3, start_arrays(), size=30.0))
    _, replies = one_round(screening(inner), answers)
    assert [id(reply) for reply in inner.seen] == [id(reply) for i, reply in enumerate(replies) if i != 2]


BREAKS: dict[str, Callable[[dict[str, Any]], RecordDict | Error]] = {
    "error": lambda state: Error(2, "Traceback\nValueError: no data"),
    "no arrays": lambda state: RecordDict({"metrics": MetricRecord({"num-examples": 1})}),
    "no metrics": lambda state: RecordDict({"arrays": record(state).array_records["arrays"]}),
    "two array records": lambda state: RecordDict({**record(state), "more": ArrayRecord({"x": Array(np.ones(1))})}),
    "other record name": lambda state: RecordDict(
        {"weights": record(state).array_records["arrays"], "metrics": record(state).metric_records["metrics"]}
    ),
    "unknown key": lambda state: record({**state, "extra": np.ones(2)}),
    "missing key": lambda state: record({k: v for k, v in state.items() if k != "1.bias"}),
    "shape": lambda state: record({**state, "1.bias": np.ones((2, 3), np.float32)}),
    "dtype": lambda state: record({**state, "1.bias": state["1.bias"].astype(np.complex64)}),
    "float64": lambda state: record({**state, "1.bias": state["1.bias"].astype(np.float64)}),
    "nan": lambda state: record({**state, "1.bias": np.full(6, np.nan, np.float32)}),
    "inf": lambda state: record({**state, "1.bias": np.full(6, -np.inf, np.float32)}),
    "huge": lambda state: record({**state, "4.weight": np.full((3, 6), 3e38, np.float32)}),
    "negative variance": lambda state: record({**state, "2.running_var": np.full(6, -1, np.float32)}),
    "nan counter": lambda state: record({**state, "2.num_batches_tracked": np.array(np.nan)}),
    "no examples": lambda state: record(state, **{"num-examples": 0}),
    "negative examples": lambda state: record(state, **{"num-examples": -5}),
    "infinite examples": lambda state: record(state, **{"num-examples": math.inf}),
    "listed examples": lambda state: record(state, **{"num-examples": [1, 2]}),
    "too many examples": lambda state: record(state, **{"num-examples": 10**9}),
    "other metrics": lambda state: record(state, surprise=1.0),
    "listed metric": lambda state: record(state, loss=[1.0, 2.0]),
    "garbage": lambda state: _with_array(state, Array("float32", (6,), "numpy.ndarray", b"\x93NUMPY garbage")),
    "pickled": lambda state: _with_array(state, Array("float32", (6,), "pickle", b"")),
    "lying shape": lambda state: _with_array(state, Array("float32", (6,), "numpy.ndarray", Array(np.ones(9)).data)),
}


def _with_array(state: dict[str, Any], array: Array) -> RecordDict:
    content = record(state)
    content.array_records["arrays"]["1.bias"] = array
    return content


@pytest.mark.parametrize(("broken", "place"), [*((name, 0) for name in BREAKS), ("error", 4), ("unknown key", 4)])
def test_a_bad_reply_costs_itself_only(broken: str, place: int) -> None:
    good = {node: moved(node, start_arrays()) for node in range(1, 6)}
    answers: list[RecordDict | Error] = [record(good[node]) for node in good]
    answers[place] = BREAKS[broken](good[place + 1])
    strategy = screening(FedAvg(), threshold=EVERYTHING, max_examples=1000)
    arrays, _ = one_round(strategy, answers)
    rejected = strategy.verdicts[place]
    assert (rejected.action, rejected.node) == (Action.REJECTED, place + 1)
    assert rejected.reason
    assert rejected.reason.isprintable()
    expected, _ = one_round(FedAvg(), [record(good[node]) for node in good if node != place + 1])
    assert bits(arrays) == bits(expected)


ODD_LAYOUTS: dict[str, Callable[[dict[str, Any]], RecordDict]] = {
    "a name behind all others": lambda state: RecordDict(
        {"zzz": record(state).array_records["arrays"], "metrics": record(state).metric_records["metrics"]}
    ),
    "metrics behind all others": lambda state: RecordDict(
        {"arrays": record(state).array_records["arrays"], "zzz": record(state).metric_records["metrics"]}
    ),
    "one more metric": lambda state: record(state, zzz=1.0),
    "another model": lambda state: RecordDict(
        {"arrays": ArrayRecord({"zzz": Array(np.ones(2))}), "zzz": MetricRecord({"num-examples": 1})}
    ),
}


@pytest.mark.parametrize("odd", ODD_LAYOUTS)
@pytest.mark.parametrize("place", [0, 1])
def test_in_a_round_of_two_a_layout_does_not_win_by_its_name(odd: str, place: int) -> None:
    """What replies look like, the name that the model was sent under says, then the round before."""
    strategy = screening(FedAvg(), threshold=EVERYTHING)
    good = moved(1, start_arrays())
    if "metric" in odd:  # nothing but an earlier round can tell
        one_round(strategy, [record(good), record(good)])
    answers: list[RecordDict | Error] = [record(good), record(good)]
    answers[place] = ODD_LAYOUTS[odd](good)
    one_round(strategy, answers)
    assert [verdict.action == Action.REJECTED for verdict in strategy.verdicts] == [place == 0, place == 1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_run_in_which_every_reply_is_bad_keeps_the_global_model(name: str) -> None:
    def broken(node: int, arrays: ArrayRecord) -> RecordDict | Error:
        return list(BREAKS.values())[node % len(BREAKS)](moved(node, start_arrays()))

    received: list[ArrayRecord] = []

    def watch(node: int, arrays: ArrayRecord) -> RecordDict | Error:
        received.append(arrays)
        return broken(node, arrays)

    strategy = screening(STRATEGIES[name](), threshold=-1.0)
    result = run(strategy, Clients(8, watch), rounds=3)
    assert not result.arrays
    assert bits(received[-1]) == bits(start_arrays())
    assert all(verdict.action == Action.REJECTED for verdict in strategy.verdicts)


@pytest.mark.parametrize("left", [1, 2, 3, 6])
@pytest.mark.parametrize("name", STRATEGIES)
def test_rejections_never_crash_a_strategy_with_a_minimum(name: str, left: int) -> None:
    def answer(node: int, arrays: ArrayRecord) -> RecordDict | Error:
        return honest(node, arrays) if node <= left else Error(2, "gone")

    result = run(screening(STRATEGIES[name](), threshold=EVERYTHING), Clients(8, answer))
    assert bool(result.arrays) == (name != "bulyan")  # Bulyan skips a round of fewer than 4f + 3 = 7 replies


def test_no_reply_at_all_is_a_round_like_any_other() -> None:
    strategy = screening(FedAvg())
    clients = Clients(3, honest)
    clients.order = slice(0, 0)
    assert not run(strategy, clients).arrays
    assert strategy.verdicts == ()


def test_outliers_on_both_sides_are_rejected_and_the_verdicts_say_why() -> None:
    heard: list[tuple[int, Any]] = []
    answers: list[RecordDict | Error] = [honest(node, start_arrays()) for node in range(1, 9)]
    answers[1] = record(moved(2, start_arrays(), size=5.0))
    answers[6] = record(moved(7, start_arrays(), size=0.0))
    strategy = screening(FedAvg(), on_verdicts=lambda number, verdicts: heard.append((number, verdicts)))
    arrays, _ = one_round(strategy, answers)
    assert heard == [(1, strategy.verdicts)]
    assert [v.node for v in strategy.verdicts if v.action == Action.REJECTED] == [2, 7]
    torn, idle = strategy.verdicts[1], strategy.verdicts[6]
    for history in range(2):
        limits = torn.limits[history]
        assert torn.discrepancies[history] > limits.upper > limits.lower > idle.discrepancies[history]
    assert torn.excess == pytest.approx(
        max(math.log(d / limit.upper) for d, limit in zip(torn.discrepancies, torn.limits, strict=True))
    )
    assert "its discrepancy" in torn.reason
    expected, _ = one_round(FedAvg(), [honest(node, start_arrays()) for node in (1, 3, 4, 5, 6, 8)])
    assert bits(arrays) == bits(expected)


def test_the_order_of_replies_changes_no_verdict() -> None:
    def answer(node: int, arrays: ArrayRecord) -> RecordDict:
        return record(moved(node, arrays, size=1.0 if node == 3 else 0.01))

    found = []
    for order in (slice(None), slice(None, None, -1)):
        clients, strategy = Clients(7, answer), screening(FedAvg())
        clients.order = order
        run(strategy, clients, rounds=1)
        found.append({verdict.node: verdict for verdict in strategy.verdicts})
    assert found[0] == found[1]
    assert found[0][3].action == Action.REJECTED


def test_correct_shortens_the_update_to_the_limit_in_the_reply_itself() -> None:
    answers: list[RecordDict | Error] = [honest(node, start_arrays()) for node in range(1, 8)]
    far = moved(3, start_arrays(), size=2.0)
    answers[2] = record(far)
    strategy = screening(FedAvg(), action="correct")
    _, replies = one_round(strategy, answers)
    verdict = strategy.verdicts[2]
    assert verdict.action == Action.CORRECTED
    assert 0 < verdict.scale < 1
    assert all(after <= limit.upper for after, limit in zip(verdict.after, verdict.limits, strict=True))
    sent = replies[2].content.array_records["arrays"]
    for name, start in net().state_dict().items():
        step = start.double().numpy() + verdict.scale * (far[name] - start.double().numpy())
        if start.is_floating_point():
            np.testing.assert_allclose(sent[name].numpy(), step, rtol=1e-5, atol=1e-6)
            assert sent[name].numpy().dtype == np.float32
        else:
            assert sent[name].numpy() == np.round(step)
    assert [v.action for i, v in enumerate(strategy.verdicts) if i != 2] == [Action.ACCEPTED] * 6


def test_weight_multiplies_num_examples_by_limit_over_discrepancy() -> None:
    answers: list[RecordDict | Error] = [honest(node, start_arrays()) for node in range(1, 8)]
    answers[2] = record(moved(3, start_arrays(), size=2.0))
    strategy = screening(FedAvg(), action="weight")
    _, replies = one_round(strategy, answers)
    verdict = strategy.verdicts[2]
    assert verdict.scale == pytest.approx(
        min(limit.upper / d for d, limit in zip(verdict.discrepancies, verdict.limits, strict=True))
    )
    assert replies[2].content.metric_records["metrics"]["num-examples"] == pytest.approx(10 * verdict.scale)
    assert replies[0].content.metric_records["metrics"]["num-examples"] == 11


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "krum", "bulyan", "fedmedian"])
def test_arrays_in_another_order_are_sorted_and_not_mixed_up(name: str) -> None:
    def shuffled(node: int, arrays: ArrayRecord) -> RecordDict:
        content = honest(node, arrays)
        if node % 2:
            own = content.array_records["arrays"]
            for key in sorted(own, reverse=True):
                own[key] = own.pop(key)
        return content

    plain = run(STRATEGIES[name](), Clients(8, honest))
    screened = run(screening(STRATEGIES[name](), threshold=EVERYTHING), Clients(8, shuffled))
    assert bits(screened.arrays) == bits(plain.arrays)


def test_discrepancy_is_the_mean_kl_from_the_model_of_lag_rounds_ago() -> None:
    globals_: list[dict[str, torch.Tensor]] = []
    sent: dict[int, dict[str, torch.Tensor]] = {}

    def answer(node: int, arrays: ArrayRecord) -> RecordDict:
        if node == 1:
            globals_.append({k: torch.from_numpy(a.numpy()).to(net().state_dict()[k]) for k, a in arrays.items()})
        state = moved(node + 10 * len(globals_), arrays)
        sent[node] = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
        return record(state)

    strategy = screening(FedAvg(), threshold=EVERYTHING, history=Lag(2))
    run(strategy, Clients(3, answer), rounds=4)
    assert len(globals_) == 4
    historical, candidate = net().eval(), net().eval()
    historical.load_state_dict(globals_[1])
    for verdict in strategy.verdicts:
        candidate.load_state_dict(sent[verdict.node])
        with torch.no_grad():
            p, q = historical(PROBE).double().softmax(1).numpy(), candidate(PROBE).double().softmax(1).numpy()
        assert verdict.discrepancies[0] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)


def test_the_callers_model_and_the_loaders_labels_are_left_alone() -> None:
    model = net().train()
    before = copy.deepcopy(model.state_dict())
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(PROBE, torch.full((8,), 99)), batch_size=3, shuffle=True
    )
    strategies = [
        DiscrepancyScreening(FedAvg(), model=model, probe=probe, threshold=robust_threshold)
        for probe in (loader, PROBE)
    ]
    for strategy in strategies:
        run(strategy, Clients(4, honest))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for one, other in zip(strategies[0].verdicts, strategies[1].verdicts, strict=True):
        assert one.discrepancies == pytest.approx(other.discrepancies, rel=1e-4)


def test_the_probes_loss_is_screened_where_asked_for() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    answers: list[RecordDict | Error] = [honest(node, start_arrays()) for node in range(1, 8)]
    wrong = moved(3, start_arrays())
    wrong["4.bias"] = wrong["4.bias"] + np.array([0, 0, 9], np.float32)
    answers[2] = record(wrong)
    strategy = DiscrepancyScreening(
        FedAvg(),
        model=net(),
        probe=[(PROBE[:5], labels[:5]), (PROBE[5:], labels[5:])],
        threshold=EVERYTHING,
        loss_threshold=partial(robust_threshold, tails="upper"),
    )
    one_round(strategy, answers)
    assert [verdict.action == Action.REJECTED for verdict in strategy.verdicts] == [node == 3 for node in range(1, 8)]
    assert "its loss" in strategy.verdicts[2].reason
    candidate = net().eval()
    candidate.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in wrong.items()})
    with torch.no_grad():
        p = candidate(PROBE).double().softmax(1).numpy()
    assert strategy.verdicts[2].discrepancies[2] == pytest.approx(-np.log(p[range(8), labels]).mean(), rel=1e-4)
    with pytest.raises(ValueError, match="probe must have labels"):
        screening(FedAvg(), loss_threshold=robust_threshold)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="action must be one of reject, correct, weight"):
        screening(FedAvg(), action="drop")
    with pytest.raises(ValueError, match="threshold"):
        screening(FedAvg(), threshold=math.nan)
    with pytest.raises(ValueError, match="probe"):
        DiscrepancyScreening(FedAvg(), model=net(), probe=PROBE[:0])
    with pytest.raises(ValueError, match="model must have the keys and shapes"):
        strategy = screening(FedAvg())
        strategy.configure_train(1, ArrayRecord({"w": Array(np.ones(2))}), ConfigRecord(), Clients(2, honest))  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="configure_train"):
        screening(FedAvg()).aggregate_train(1, [])
