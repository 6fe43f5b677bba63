"""Whole federations of mode=update in one process: the real client app, grid, strategies and screening, without Ray."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, RecordDict
from torch import Tensor, nn

from fedmd.audit.reader import read_live
from fedmd.config import RunConfig
from fedmd.data.clients import sample_clients
from fedmd.data.federated import load_federated_data
from fedmd.flower.wire.model_exchange import ByReference
from fedmd.models import model_for
from fedmd.seeding import generator
from fedmd.storage import load_tree, save_tree
from fedmd.training.setup import set_up
from fedmd.types import Action, RoundReport
from tests.flower.federation import Outcome, federate, simulated

Make = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("quick_collections")
SCREENED = {"defense": {"name": "md_screen"}, "history": {"name": "lag_and_start", "lag": 1}}
ATTACKED = {"attack": {"name": "accumulative", "fraction": 0.4}}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[key], second[key]) for key in first)


def test_fedavg_is_a_plain_loop(run: Any, small_updates: Any, make_config: Make, tmp_path: Path) -> None:
    """Federated averaging written out: train a copy for each client, average the weights by number of samples."""
    changes = {"federation": {"clients": 5, "nodes": 2, "clients_per_round": 3}, "local": {"batch_size": 8, "lr": 0.1}}
    changes |= {"data.partition": {"name": "dirichlet", "alpha": 0.5}}
    federated = run(changes).weights
    config = make_config({**small_updates, **changes})
    data = load_federated_data(config)
    model = model_for(config.model, data.images, 0)
    model.load_state_dict(set_up(config).trained.final)
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
    reports = run().reports
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
    plain = run(changes)
    lenient = {**SCREENED, "screening": {"threshold": "fixed", "upper": 1e9, "loss": "ignored"}}
    screened = run({**changes, **lenient})
    assert same(plain.weights, screened.weights)
    assert [report.accuracy for report in screened.reports] == [report.accuracy for report in plain.reports]
    for report in screened.reports:
        assert (report.verdicts.before <= 1).all() and report.verdicts.threshold == 1
        assert report.verdicts.discrepancy is not None and (report.verdicts.discrepancy >= 0).all()
        assert "screening" in report.wall_s


def test_what_is_rejected_is_not_learned_from(run: Any) -> None:
    strict = {**SCREENED, "screening": {"threshold": "fixed", "upper": 0.0, "loss": "ignored"}}
    reports = run(strict).reports
    assert set(reports[-1].verdicts.actions) == {Action.REJECTED}
    assert reports[0].accuracy == reports[-1].accuracy  # nothing was ever learned


def test_nobody_malicious_is_no_attack(run: Any) -> None:
    attack = {"name": "accumulative", "fraction": 0.0}
    none = run().weights
    assert same(run({"attack": attack}).weights, none) and not same(run(ATTACKED).weights, none)


def test_nodes_and_the_models_way_change_nothing(run: Any) -> None:
    changes = {**ATTACKED, **SCREENED}
    reference = run(changes).weights
    assert same(run(changes, nodes=5).weights, reference)
    assert same(run(changes, nodes=1, by_reference=True).weights, reference)


STRATEGIES: list[dict[str, Any]] = [
    *({"name": name} for name in ("fedavg", "fedavgm", "fedprox", "fedmedian", "fedtrimmedavg", "krum", "multikrum")),
    {"name": "fedadam", "lr": 0.1},
    {"name": "bulyan", "malicious_share": 0.0},
    *({"name": name} for name in ("norm_clipping", "fltrust", "centered_clipping")),
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy["name"])
@pytest.mark.parametrize("defense", [{}, SCREENED], ids=["unscreened", "screened"])
def test_every_strategy_runs(run: Any, strategy: dict[str, Any], defense: dict[str, Any]) -> None:
    changes = {"model": {"name": "resnet_small", "width": 2}, "strategy": strategy, **defense}
    changes |= {"attack": {"name": "sign_flip", "fraction": 0.2}, "stream.clean_rounds": 0}
    done = run(changes)
    assert len(done.reports) == 2 and all(report.rejections == () for report in done.reports)
    assert done.server.version == 2
    assert all(bool(tensor.isfinite().all()) for tensor in done.weights.values())


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
    done = run(spoil={1: spoil})
    for report in done.reports:
        assert list(report.clients) == [0, 2, 3, 4]
        assert [rejection.client for rejection in report.rejections] == [1]
        assert len(report.verdicts.actions) == 4
    assert all(bool(tensor.isfinite().all()) for tensor in done.weights.values())


def test_a_round_of_nothing_but_rejections_keeps_the_model(run: Any) -> None:
    def empty(content: RecordDict) -> None:
        for update in [key for key in content if key != "fedmd"]:
            del content[update]

    reports = run(spoil=dict.fromkeys(range(5), empty)).reports
    assert len({report.accuracy for report in reports}) == 1
    assert all(len(report.clients) == 0 and len(report.rejections) == 5 for report in reports)


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
        "quarantine": {"name": "evidence", "shift": 0.5, "false_alarms": 818.7},
    },
    "averaged history": {"defense": {"name": "md_screen"}, "history": {"name": "ema", "decay": 0.5}},
}


@pytest.mark.parametrize("name", REMEMBERING)
def test_going_on_from_a_checkpoint_is_the_same_run(
    name: str, make_config: Make, small_updates: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in round 3 after a checkpoint of two rounds; new objects, which know only the file."""
    more = {"federation": {"clients": 3, "nodes": 2}, "stream.clean_rounds": 3, **ATTACKED, **REMEMBERING[name]}
    config = make_config({**small_updates, **more})

    def start(folder: Path, saved: Any = None, cut: int = -1) -> Outcome:
        folder.mkdir(exist_ok=True)
        monkeypatch.setattr("tempfile.tempdir", str(folder))

        def crash(report: RoundReport) -> None:
            if report.round == cut:
                raise Crash

        done, exchange = Outcome(), ByReference(folder)
        with suppress(Crash):
            federate(simulated(2), config, folder, exchange=exchange, saved=saved, watch=crash, outcome=done)
        save_tree(tmp_path / "state", done.saved)
        done.saved = load_tree(tmp_path / "state")
        return done

    whole, before = start(tmp_path / "whole"), start(tmp_path / "killed", cut=2)
    after = start(tmp_path / "killed", before.saved)
    reports = (*before.reports, *after.reports)
    assert [report.round for report in reports] == list(range(config.stream.rounds))
    for report, other in zip(whole.reports, reports, strict=True):
        assert (report.round, report.phase, report.accuracy) == (other.round, other.phase, other.accuracy)
        assert np.array_equal(report.clients, other.clients) and report.rejections == other.rejections
        assert np.array_equal(report.verdicts.before, other.verdicts.before, equal_nan=True)
        assert np.array_equal(report.verdicts.actions, other.verdicts.actions)
        assert report.quarantined == other.quarantined
    assert any(report.quarantined for report in whole.reports) == (name == "quarantined")
    trails = [[r.entry for r in read_live(tmp_path / folder / "audit")] for folder in ("whole", "killed")]
    assert trails[0] == trails[1] and len(trails[0]) > 3 * config.stream.rounds
    assert same(whole.weights, after.weights)
    assert whole.saved is not None and after.saved is not None
    last, again = (done.saved["server"]["aggregator"]["arrays"] for done in (whole, after))
    assert same(last, again) and [a.dtype for a in last.values()] == [a.dtype for a in again.values()]
