"""Whole federations of mode=update in one process: the real client app, grid, strategies and screening, without Ray."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from fedmd.flower.server.client_grid import ClientGrid, node_of
from fedmd.flower.server.update_rounds import UpdateRounds
from flwr.app import Array, Message, RecordDict
from torch import Tensor, nn

from fedmd.audit.reader import read_live
from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.flower.wire import update_reply
from fedmd.flower.wire.model_exchange import ByReference
from fedmd.models import model_for
from fedmd.rounds.checkpoint import Start
from fedmd.seeding import generator
from fedmd.storage import load_tree, save_tree
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import Action, RoundReport

Make = Callable[..., RunConfig]
SCREENED = {"defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}}
ATTACKED = {"attack": {"name": "accumulative", "fraction": 0.4}}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_fedavg_is_a_plain_loop(run: Any, small_updates: Any, make_config: Make, tmp_path: Path) -> None:
    """Federated averaging written out: train a copy for each client, average the weights by number of samples."""
    changes = {"federation": {"clients": 5, "nodes": 2, "clients_per_round": 3}, "local": {"batch_size": 8, "lr": 0.1}}
    changes |= {"data.partition": {"name": "dirichlet", "alpha": 0.5}}
    _, federated = run(changes)
    config = make_config({**small_updates, **changes})
    data = load_federated_data(config)
    model = model_for(config.model, data.images, 0)
    cache = tmp_path / "cache"
    model.load_state_dict(burn_in(config, data.images, data.split, placement=Placement(), cache_dir=cache).final)
    for round in range(config.stream.rounds):
        total: dict[str, Tensor] = {}
        samples = 0
        for client in sample_clients(config, round):
            own = data.images.take(data.streams.partition(client))
            x, y = torch.from_numpy(own.images).float() / 255, torch.from_numpy(own.labels)
            local = model_for(config.model, data.images, 0)
            local.load_state_dict(model.state_dict())
            local.train()
            optimizer = torch.optim.SGD(local.parameters(), lr=0.1)
            order = torch.randperm(len(x), generator=generator(0, "local", client, round))
            for first in range(0, len(x), 8):
                chosen = order[first : first + 8]
                optimizer.zero_grad()
                nn.functional.cross_entropy(local(x[chosen]), y[chosen]).backward()
                optimizer.step()
            for key, tensor in local.state_dict().items():
                total[key] = total.get(key, torch.zeros_like(tensor)) + len(x) * tensor
            samples += len(x)
        model.load_state_dict({key: tensor / samples for key, tensor in total.items()})
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(federated[key], tensor, rtol=1e-5, atol=1e-6)


def test_reports_of_an_honest_run(run: Any) -> None:
    reports, _ = run()
    assert [report.round for report in reports] == [0, 1, 2]
    assert [report.phase for report in reports] == ["clean", "accumulative", "trigger"]
    for report in reports:
        assert list(report.clients) == [0, 1, 2, 3, 4] and report.rejections == ()
        assert report.accuracy is not None and report.attack_success is None
        assert set(report.verdicts.actions) == {Action.ACCEPTED} and np.isnan(report.verdicts.before).all()
        assert set(report.wall_s) == {"transport", "local_training", "guard", "step", "evaluation"}
        assert report.bytes_received > 0


@pytest.mark.parametrize("changes", [{}, ATTACKED])
def test_screening_that_flags_nobody_is_plain_fedavg(run: Any, changes: dict[str, Any]) -> None:
    plain_reports, plain = run(changes)
    lenient = {**SCREENED, "screening": {"threshold": "fixed", "upper": 1e9, "loss": "ignored"}}
    reports, screened = run({**changes, **lenient})
    assert same(plain, screened)
    assert [report.accuracy for report in reports] == [report.accuracy for report in plain_reports]
    for report in reports:
        assert (report.verdicts.before <= 1).all() and report.verdicts.threshold == 1
        assert report.verdicts.discrepancy is not None and (report.verdicts.discrepancy >= 0).all()
        assert "screening" in report.wall_s


def test_what_is_rejected_is_not_learned_from(run: Any) -> None:
    strict = {**SCREENED, "screening": {"threshold": "fixed", "upper": 0.0, "loss": "ignored"}}
    reports, _ = run(strict)
    assert set(reports[-1].verdicts.actions) == {Action.REJECTED}
    assert reports[0].accuracy == reports[-1].accuracy  # nothing was ever learned


def test_nobody_malicious_is_no_attack(run: Any) -> None:
    attack = {"name": "accumulative", "fraction": 0.0}
    _, zero = run({"attack": attack})
    _, none = run()
    _, some = run(ATTACKED)
    assert same(zero, none) and not same(some, none)


def test_nodes_and_the_models_way_change_nothing(run: Any) -> None:
    changes = {**ATTACKED, **SCREENED}
    _, reference = run(changes)
    assert same(run(changes, nodes=5)[1], reference)
    assert same(run(changes, nodes=1, by_reference=True)[1], reference)


@pytest.mark.parametrize(
    "name", ["fedavg", "fedavgm", "fedadam", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan"]
)
@pytest.mark.parametrize("defense", [{}, SCREENED])
def test_every_strategy_runs(run: Any, name: str, defense: dict[str, Any]) -> None:
    strategy = {"name": name, "malicious_share": 0.0 if name == "bulyan" else 0.2, "lr": 0.1}
    changes = {"model": {"name": "resnet_small", "width": 2}, "strategy": strategy, **defense}
    changes |= {"attack": {"name": "sign_flip", "fraction": 0.2}, "stream.clean_rounds": 0}
    reports, state = run(changes)
    assert len(reports) == 2 and all(report.rejections == () for report in reports)
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def poison_with(name: str, value: float) -> Callable[[RecordDict], None]:
    def spoil(content: RecordDict) -> None:
        record = content.array_records["update.1"]
        key = next(iter(record))
        array = record[key].numpy().copy()
        array.flat[0] = value
        record[key] = Array(array if name == "value" else array[:1])

    return spoil


@pytest.mark.parametrize("spoil", [poison_with("value", np.nan), poison_with("shape", 0.0)])
def test_a_hostile_reply_costs_one_client(run: Any, spoil: Callable[[RecordDict], None]) -> None:
    reports, state = run(spoil={1: spoil})
    for report in reports:
        assert list(report.clients) == [0, 2, 3, 4]
        assert [rejection.client for rejection in report.rejections] == [1]
        assert len(report.verdicts.actions) == 4
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())


def test_a_round_of_nothing_but_rejections_keeps_the_model(run: Any) -> None:
    def empty(content: RecordDict) -> None:
        for update in [key for key in content if key != "fedmd"]:
            del content[update]

    reports, _ = run(spoil=dict.fromkeys(range(5), empty))
    assert len({report.accuracy for report in reports}) == 1
    assert all(len(report.clients) == 0 and len(report.rejections) == 5 for report in reports)


def test_a_strategy_that_sends_different_models_is_refused(make_config: Make, wire: SimpleNamespace) -> None:
    grid = ClientGrid.__new__(ClientGrid)
    messages = [Message(RecordDict(), node_of(client), "train") for client in (0, 1)]
    with pytest.raises(ValueError, match="another model"):
        grid.send_and_receive(messages)
    assert update_reply(0, []).array_records == {}


# -- cut off and gone on with -----------------------------------------------------------------------------------------


class Crash(Exception):
    """Instead of SIGKILL."""


REMEMBERING: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavgm": {"strategy": {"name": "fedavgm", "momentum": 0.9}},
    "fedadam": {"strategy": {"name": "fedadam", "lr": 0.01}},
    "centered_clipping": {"strategy": {"name": "centered_clipping", "radius": 0.05}},
    "screened": {**SCREENED, "strategy": {"name": "fedavgm", "momentum": 0.9}},
    "quarantined": {
        **SCREENED,
        "screening": {"threshold": "fixed", "upper": 0.001, "loss": "ignored"},
        "quarantine": {"name": "evidence", "shift": 0.5, "limit": 0.2},
    },
    "averaged history": {"defense": {"name": "md_screen"}, "history": {"name": "ema", "decay": 0.5}},
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_going_on_from_a_checkpoint_is_the_same_run(
    name: str,
    make_config: Make,
    small_updates: Any,
    in_process: Any,
    wire: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cut off in round 3 after a checkpoint of two rounds; new objects, which know only the file."""
    more = {"federation": {"clients": 3, "nodes": 2}, "stream.clean_rounds": 3, **ATTACKED, **REMEMBERING[name]}
    config = make_config({**small_updates, **more})
    data = load_federated_data(config)
    trained = burn_in(config, data.images, data.split, placement=Placement(), cache_dir=tmp_path / "cache")

    def federate(
        folder: str, start: Start | None = None, cut: int = -1
    ) -> tuple[list[RoundReport], dict[str, Tensor], dict[str, Any]]:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / folder))
        exchange = ByReference(tmp_path / folder)
        grid: Any = in_process(2, wire, {}, ())
        rounds = UpdateRounds(grid, data, trained, Placement(), exchange, tmp_path / folder)
        reports: list[RoundReport] = []

        def follow(report: RoundReport) -> None:
            if report.round == cut:
                raise Crash
            reports.append(report)
            save_tree(tmp_path / folder / "state", rounds.state())

        with suppress(Crash):
            rounds.run(follow, tmp_path / folder, start)
        state = {key: tensor.clone() for key, tensor in rounds.server.model.state_dict().items()}
        return reports, state, load_tree(tmp_path / folder / "state")

    expected, model, last = federate("whole")
    before, _, saved = federate("killed", cut=2)
    after, again, last_again = federate("killed", Start(round=2, saved=saved))
    assert [report.round for report in (*before, *after)] == list(range(config.stream.rounds))
    for report, other in zip(expected, (*before, *after), strict=True):
        assert (report.round, report.phase, report.accuracy) == (other.round, other.phase, other.accuracy)
        assert np.array_equal(report.clients, other.clients) and report.rejections == other.rejections
        assert np.array_equal(report.verdicts.before, other.verdicts.before, equal_nan=True)
        assert np.array_equal(report.verdicts.actions, other.verdicts.actions)
        assert report.quarantined == other.quarantined
    assert any(report.quarantined for report in expected) == (name == "quarantined")
    trails = [[r.entry for r in read_live(tmp_path / folder / "audit")] for folder in ("whole", "killed")]
    assert trails[0] == trails[1] and len(trails[0]) > 3 * config.stream.rounds
    assert same(model, again)
    assert same(last["arrays"], last_again["arrays"])
    assert {a.dtype for a in last["arrays"].values()} == {a.dtype for a in last_again["arrays"].values()}
