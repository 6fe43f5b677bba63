"""`fedmd quarantine` on a run folder made in this process: client 1 calls everything a 9, and is caught."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fedmd.rounds.learner import OnlineLearner
from fedmd.rounds.services import guarding, save_models

from fedmd.audit import release_requests as requests
from fedmd.audit.reader import Intact, read_live, verify
from fedmd.cli import main as cli
from fedmd.cli.quarantine import inmates
from fedmd.config import RunConfig
from fedmd.data.cache import default_cache_dir
from fedmd.data.federated import load_federated_data
from fedmd.defense.samples.outputs import ModelOutputs
from fedmd.training.burn_in import burn_in
from fedmd.training.device import Placement
from fedmd.types import StreamBatch

ROUNDS, BATCH = 3, 8


def label(answers: ModelOutputs) -> torch.Tensor:
    """A detector whose scores are known in advance."""
    return answers.labels.float()


@pytest.fixture
def folder(make_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    config = make_config(
        {
            "model": {"name": "cnn", "width": 2},
            "data.splits": {"burn_in": 60, "trusted": 100, "attacker": 20, "test": 30},
            "stream.batch_size": BATCH,
            "quarantine": {"name": "evidence", "limit": 5.0},
            "defense.name": "drop",
        }
    )
    data, placement = load_federated_data(config), Placement.of(config.runtime)
    cache = default_cache_dir(config.runtime.cache_dir)
    trained = burn_in(config, data.images, data.split, placement=placement, cache_dir=cache)
    learner = OnlineLearner(config, data.images, data.split, trained, placement)
    learner.pipeline.detector = label
    run = tmp_path / "run"
    with guarding(config, run) as guard:
        for round in range(ROUNDS):
            honest, other = (data.streams.batch(client, round) for client in (0, 1))
            nines = StreamBatch(1, round, other.images, np.full(BATCH, 9))
            admitted = guard.admit(round, (honest, nines))
            judged = learner.judge(admitted.heard)
            settled = guard.settle(admitted, judged, learner.pipeline.steps, learner.trusted_scores)
            assert settled.judged is not None
            learner.step(settled.judged)
    save_models(learner, run)
    (run / "summary.json").write_text(json.dumps({"config": json.loads(config.to_json())}))
    return run


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[str]]]:
    def ask(*arguments: object) -> tuple[int, list[str]]:
        with pytest.raises(SystemExit) as caught:
            cli.main(["quarantine", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(caught.value.code, int)
        return caught.value.code, (out or err).splitlines()

    return ask


Call = Callable[..., tuple[int, list[str]]]


def test_list_and_show(folder: Path, call: Call) -> None:
    code, lines = call(folder, "list")
    assert code == 0 and len(lines) == 3
    assert lines[2].split()[:6] == ["1", "since", "round", "0", str(ROUNDS), lines[2].split()[5]]
    code, lines = call(folder, "show", 1)
    assert code == 0 and sum(line.startswith("kept: round") for line in lines) == ROUNDS
    assert sum("message quarantined" in line for line in lines) == ROUNDS
    code, lines = call(folder, "show", 0)
    assert code == 0 and not any("kept" in line for line in lines)


def test_release_is_asked_for_and_shown(folder: Path, call: Call) -> None:
    code, lines = call(folder, "release", 1)
    assert code == 2 and "the run is over" in lines[0] and not requests.pending(folder / "quarantine")
    (folder / "summary.json").unlink()  # as while the server runs
    code, _ = call(folder, "release", 1)
    assert code == 0 and requests.pending(folder / "quarantine") == {(1, inmates(folder)[1])}
    assert "asked for" in call(folder, "list")[1][2]


def test_replay_judges_again_and_learns_only_if_told(folder: Path, call: Call) -> None:
    models = (folder / "models.safetensors").read_bytes()
    for place in (1, 2):  # judging twice gives the same verdicts twice
        code, lines = call(folder, "replay", 1)
        assert code == 0 and [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]
        replayed = [r.entry for r in read_live(folder / "audit") if r.entry.kind == "replay"]
        assert len(replayed) == place * ROUNDS * BATCH
    assert replayed[: ROUNDS * BATCH] == replayed[ROUNDS * BATCH :]
    assert {entry.model_version for entry in replayed} == {ROUNDS}
    assert (folder / "models.safetensors").read_bytes() == models
    code, _ = call(folder, "replay", 1, "--learn")
    assert code == 0 and (folder / "models.safetensors").read_bytes() != models
    learned = [r.entry for r in read_live(folder / "audit") if r.entry.action == "learned"]
    assert [(entry.round, entry.client) for entry in learned] == [(0, 1), (1, 1), (2, 1)]
    assert isinstance(verify(folder / "audit"), Intact)


@pytest.mark.parametrize("arguments", [("release", 0), ("replay", 0), ("show", 99), ("show",), ("list", "x")])
def test_mistakes_cost_one_line(folder: Path, call: Call, arguments: tuple[object, ...]) -> None:
    code, lines = call(folder, *arguments)
    assert code == 2 and len(lines) == 1 and lines[0].startswith("fedmd: ") and lines[0].endswith(".")


def test_replay_needs_an_undamaged_finished_run(folder: Path, call: Call) -> None:
    (kept, *_) = sorted((folder / "quarantine").rglob("*.safetensors"))
    kept.write_bytes(kept.read_bytes()[:50])
    assert call(folder, "replay", 1)[0] == 2
    (folder / "models.safetensors").unlink()
    assert "models" in call(folder, "replay", 1)[1][0]
    (folder / "summary.json").unlink()
    assert "not finished" in call(folder, "replay", 1)[1][0]
