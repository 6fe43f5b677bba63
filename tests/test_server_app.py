"""What `flwr run` hands over, and what becomes of it."""

import json
import os
import shlex
import signal
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import Message

from fedmd import server_app
from fedmd.config import ConfigError, RunConfig
from fedmd.flower.client.app import app as client_app
from fedmd.flower.wire.header import read_request
from fedmd.flower.wire.samples import STREAM
from fedmd.flower.wire.updates import UPDATE
from fedmd.report.files import SUMMARY, read_metrics
from fedmd.rounds.checkpoint import CHECKPOINT
from fedmd.rounds.folder import note_config, noted_config
from fedmd.runs.compose import compose
from fedmd.runs.inline import server_identity
from tests.inline import Inline, simulated_nodes


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[RunConfig, Path, bool]]:
    """What `serve` is asked to do, instead of doing it."""
    calls: list[tuple[RunConfig, Path, bool]] = []

    def serve(grid: object, config: RunConfig, folder: Path, observe: object, *, resume: bool) -> Any:
        calls.append((config, folder, resume))
        return {"audit_head": {"seq": 1, "hash": "0" * 64}}

    monkeypatch.setattr(server_app, "serve", serve)
    return calls


def run(*overrides: str, grid: Any = None) -> None:
    context: Any = SimpleNamespace(run_config={"overrides": shlex.join(overrides)})
    server_app.main(grid, context)  # type: ignore[arg-type]


def test_a_new_run_can_be_resumed_from_its_first_moment(served: list[Any], tmp_path: Path) -> None:
    run("experiment=smoke", "seed=3", f"hydra.run.dir={tmp_path}/new")
    config = compose(["experiment=smoke", "seed=3"]).config
    assert served == [(config, tmp_path / "new", False)]
    assert noted_config(tmp_path / "new") == config
    run(f"resume={tmp_path}/new")
    assert served[1:] == [(config, tmp_path / "new", True)]


def test_a_finished_run_is_left_alone(served: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = compose(["experiment=smoke"]).config
    note_config(tmp_path, config)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "summary.json").write_text(
        json.dumps({"config": json.loads(config.to_json()), "detection": {}, "wall_s": {}})
    )
    run(f"resume={tmp_path}")
    assert served == [] and "nothing to resume" in capsys.readouterr().out


def test_what_cannot_be_resumed_is_said(served: list[Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of a run"):
        run(f"resume={tmp_path}")
    with pytest.raises(ConfigError, match="leave out 'seed=1'"):
        run(f"resume={tmp_path}", "seed=1")
    assert served == []


class Asking(Inline):
    """A grid in which SIGTERM comes, as from a container's stop, as a round's clients are asked."""

    def __init__(self, round: int | None, kind: str) -> None:
        super().__init__(simulated_nodes(client_app, 4))
        self._round, self._kind = round, kind

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = list(messages)
        for message in sent:
            if message.metadata.message_type == self._kind and read_request(message).round == self._round:
                self._round = None
                os.kill(os.getpid(), signal.SIGTERM)
        return super().push_messages(sent)


@pytest.mark.parametrize("mode", ["stream", "update"])
def test_sigterm_ends_a_round_and_the_run_can_be_gone_on_with(mode: str, tmp_path: Path) -> None:
    """Flower's own handler, which tells SuperLink and exits, is there again afterwards and was not called."""
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    flowers = signal.getsignal(signal.SIGTERM)
    small = ["experiment=smoke", f"mode={mode}", "attack=none", "training.burn_in.epochs=1", "runtime.device=cpu"]
    kind = STREAM if mode == "stream" else UPDATE
    try:
        with server_identity():
            stopped, quiet = Asking(1, kind), Asking(None, kind)
            settings = [*small, f"hydra.run.dir={tmp_path}/run", f"runtime.cache_dir={tmp_path}"]
            with pytest.raises(RuntimeError, match=f"asked to end; overrides='resume={tmp_path}/run' goes on"):
                run(*settings, grid=stopped)
            assert signal.getsignal(signal.SIGTERM) is flowers and called == []
            rounds = [row["round"] for row in read_metrics(tmp_path / "run")]
            assert rounds == [0, 1] and (tmp_path / "run" / CHECKPOINT).exists()
            assert not (tmp_path / "run" / SUMMARY).exists()
            run(f"resume={tmp_path}/run", grid=quiet)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [row["round"] for row in read_metrics(tmp_path / "run")] == [0, 1, 2, 3]
    assert (tmp_path / "run" / SUMMARY).exists()
