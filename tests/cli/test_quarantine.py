"""`fedmd quarantine` on a run folder made in this process: client 1 sends nothing but white images, and is caught."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fedmd.audit import release_requests as requests
from fedmd.audit.reader import Intact, read_live, verify
from fedmd.cli import main as cli
from fedmd.cli.quarantine import inmates
from fedmd.config import RunConfig
from fedmd.rounds.gate import open_gate
from fedmd.rounds.loop import run_rounds
from fedmd.rounds.records import Collected
from fedmd.rounds.stream import StreamServer
from fedmd.training.setup import set_up
from fedmd.types import StreamBatch
from tests.rounds.federation import brightness

ROUNDS, BATCH = 3, 8


@pytest.fixture
def folder(make_config: Callable[..., RunConfig], tmp_path: Path) -> Path:
    config = make_config(
        {
            "model": {"name": "cnn", "width": 2},
            "data.splits": {"burn_in": 60, "trusted": 100, "attacker": 20, "test": 30},
            "stream.batch_size": BATCH,
            **{f"stream.{phase}_rounds": 0 for phase in ("accumulative", "trigger", "recovery")},
            "stream.clean_rounds": ROUNDS,
            "quarantine": {"name": "evidence", "false_alarms": 6.7379},
            "defense.name": "drop",
        }
    )
    run = tmp_path / "run"
    setup = set_up(config)
    server = StreamServer(setup)
    server.pipeline.detector = brightness

    def collect(round: int, clients: Sequence[int], net: nn.Module) -> Collected[StreamBatch]:
        honest, other = (setup.data.streams.batch(client, round) for client in (0, 1))
        return Collected((honest, StreamBatch(1, round, np.full_like(other.images, 255), other.labels)), (), 0)

    with open_gate(config, run, server) as gate:
        list(run_rounds(config, server, collect, gate, lambda round: "clean"))
    server.save_models(run)
    (run / "summary.json").write_text(
        json.dumps({"config": json.loads(config.to_json()), "detection": {}, "wall_s": {}})
    )
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
